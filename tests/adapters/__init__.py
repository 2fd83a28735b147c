"""Adapters on the real functions of released frameworks, each in a process of its own."""
