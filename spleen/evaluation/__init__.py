"""Scores against a reference, and comparisons of predictions."""
