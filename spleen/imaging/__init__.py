"""Volumes, grids, labels, intensities and slices."""
