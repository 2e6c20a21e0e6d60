"""Suggested training settings for a set of cases."""
