"""Panes: what a screen is made of."""
