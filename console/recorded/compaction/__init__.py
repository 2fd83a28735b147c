"""Compaction: closed journal segments as Parquet tables, and the frames read back from them."""
