"""Metrics of masks, and their statistics."""
