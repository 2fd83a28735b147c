"""Logs of other frameworks as runs of this one: what a file holds, under which names, written as a journal."""
