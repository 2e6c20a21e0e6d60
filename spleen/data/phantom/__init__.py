"""The synthetic CT."""
