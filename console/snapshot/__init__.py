"""Tables of a run from its journal, its hub or its Parquet, in batches of columns: what `console.export` stands on."""
