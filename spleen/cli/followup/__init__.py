"""The subcommands that compare scans with each other and cut them along planes."""
