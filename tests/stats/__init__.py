"""Simulations of what the console's statistics promise; printed as tables, and in a small version checked by tests/unit."""
