"""What every screen over a run has: bars, banner, panes, command line."""
