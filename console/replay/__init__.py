"""Replay of a recorded run: its frames in their original time or faster, from any step."""
