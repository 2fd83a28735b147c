"""The tables of what the statistics hold: coverage, false alarms, power and delay, by simulation (`make stats`)."""
