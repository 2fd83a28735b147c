"""The state of a run as values and lines: summary, steps, link health, lease and effects of fixes."""
