"""Scores and comparisons as text, figures and files."""
