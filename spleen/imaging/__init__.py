"""Volumes and what becomes of them on the way to a network."""
