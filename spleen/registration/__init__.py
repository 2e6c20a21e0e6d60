"""Align scans of one patient, and cut them along any plane; both by SimpleITK (extra `registration`)."""
