"""What the files of one case are."""
