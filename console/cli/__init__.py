"""The `driftline` command: entry point, arguments, and one module for each verb."""
