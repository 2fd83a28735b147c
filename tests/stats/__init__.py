"""Tables of how often the numbers and verdicts are wrong, by simulation (`make stats`); each module has `tables`."""
