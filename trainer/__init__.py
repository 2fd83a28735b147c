"""The trainer's side of a run: policy, objective, mismatch, and the loop that drives the engines."""
