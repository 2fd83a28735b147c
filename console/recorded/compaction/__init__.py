"""Closed journal segments as Parquet tables, and their frames again."""
