"""The subcommands about scans of one patient over time, and how sure their volumes are."""
