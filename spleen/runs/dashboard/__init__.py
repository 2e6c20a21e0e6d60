"""A report of many runs in Weights & Biases."""
