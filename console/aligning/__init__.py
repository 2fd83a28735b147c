"""Bringing the backend home: the fixes and syncs that are asked for, in order, what came of them, and back again."""
