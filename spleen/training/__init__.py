"""Fits a network to slices with Lightning; independent of the configuration."""
