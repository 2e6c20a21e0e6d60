"""Fits a network to slices with Lightning; knows no configuration."""
