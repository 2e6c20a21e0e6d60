"""What a run shows to its reader: pictures and tables."""
