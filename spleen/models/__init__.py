"""Networks, losses, and the description in a checkpoint."""
