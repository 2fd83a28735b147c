"""Simulations of what the statistics promise: tables for `make stats`, and a small version in tests/unit."""
