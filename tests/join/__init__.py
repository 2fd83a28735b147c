"""A run of another framework, from the package index, that joins by one added line."""
