"""Imports logs of other frameworks as runs: readers, the mapping of metric names, and the journal written."""
