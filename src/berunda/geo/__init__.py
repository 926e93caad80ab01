"""Rasters and polygons: opened safely, brought onto one grid, read and written by windows."""
