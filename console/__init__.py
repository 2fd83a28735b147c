"""The operator's side: command line, store, export and terminal screens."""
