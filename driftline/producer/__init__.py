"""Sending frames into a run: the probe, its bounded ring, and the thread that sends."""
