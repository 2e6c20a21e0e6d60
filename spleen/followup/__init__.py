"""Scans of one patient at several times: volumes, changes, and whether a change means anything."""
