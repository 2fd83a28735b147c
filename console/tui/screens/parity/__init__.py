"""The parity screen."""
