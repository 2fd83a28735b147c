"""Tables of how often the numbers and verdicts are wrong, by simulation; each module has `tables`."""
