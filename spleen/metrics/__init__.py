"""Scores of a prediction against a reference: pure functions, and the torchmetrics shell that accumulates counts."""
