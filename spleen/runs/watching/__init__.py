"""Runs and studies at work, seen from their folders alone."""
