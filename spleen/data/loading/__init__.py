"""Slices as batches."""
