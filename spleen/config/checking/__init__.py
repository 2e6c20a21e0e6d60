"""Checks of a configuration: what values and combinations are allowed."""
