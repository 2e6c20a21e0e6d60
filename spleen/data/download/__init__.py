"""Public data sets: download, verify, unpack."""
