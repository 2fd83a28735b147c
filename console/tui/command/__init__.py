"""The command line: its grammar, intents, history and line editing."""
