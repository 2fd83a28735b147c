"""What is measured: mismatch, effects of fixes with their intervals, and the phases of weight syncs."""
