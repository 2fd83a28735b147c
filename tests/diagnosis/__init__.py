"""Simulated runs with known causes: a small transformer in torch whose two sides really differ, and what is made of
it."""
