"""Dataset layouts on disk."""
