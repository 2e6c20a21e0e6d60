"""Command line: one file per subcommand, with its options and exit codes."""
