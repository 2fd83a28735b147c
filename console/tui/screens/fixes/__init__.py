"""The fixes screen."""
