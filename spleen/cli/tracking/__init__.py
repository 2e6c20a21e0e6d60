"""The subcommands about Weights & Biases."""
