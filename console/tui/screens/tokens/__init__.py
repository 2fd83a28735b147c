"""The tokens screen."""
