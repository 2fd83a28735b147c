"""Imports logs of other frameworks as runs: readers, and the journal written."""
