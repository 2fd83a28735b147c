"""Painting cells: text that fits, glyphs, colours, axes, rasters and tables."""
