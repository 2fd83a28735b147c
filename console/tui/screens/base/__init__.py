"""Base of all screens over a run: bars, banner, panes, command line."""
