"""Rows of the benchmark protocol and the fair comparison of methods."""
