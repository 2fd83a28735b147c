"""The console in a browser: textual-serve on loopback, one read-only console process for each open page."""
