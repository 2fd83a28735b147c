"""The demonstration: its operator and its report."""
