"""The engines screen."""
