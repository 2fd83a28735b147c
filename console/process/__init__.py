"""Processes of this machine: process trees, signals, interrupts, and a short start."""
