"""Connecting to a run: targets, OpenSSH tunnels, commands, and sources of frames."""
