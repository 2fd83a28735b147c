"""Recorded runs: blocks of the journal, frames in order, and metrics as arrays, whatever is on the disk."""
