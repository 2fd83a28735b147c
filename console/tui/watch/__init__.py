"""The runs that the console watches: their frames, verdicts and alarms, each on a thread of its own."""
