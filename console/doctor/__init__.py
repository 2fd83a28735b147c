"""`driftline doctor`: facts about a run and this machine, and verdicts on them."""
