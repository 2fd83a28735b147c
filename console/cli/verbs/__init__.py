"""One module for each verb of the command line. Each holds functions `(args) -> exit code`."""
