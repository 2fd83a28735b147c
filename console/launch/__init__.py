"""Starting a run: preflight checks, the supervisor of its processes, and the run in the foreground."""
