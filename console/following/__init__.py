"""A run of another framework, followed by the files that it writes while it trains."""
