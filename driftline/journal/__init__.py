"""The append-only journal: records with checksums, segments, their index, and the disk below them."""
