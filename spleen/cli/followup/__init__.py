"""Subcommands that measure an organ in scans, and how it changes."""
