"""Trainers of other frameworks as the producer `trainer` of a run: one module a framework, and what they share.

A framework is imported only by its own module, and only once that is used: in the framework's process.
"""
