"""A look at data before training."""
