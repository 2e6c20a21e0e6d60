"""Slice-by-slice segmentation of one organ in medical volumes: train, score, compare."""

__version__ = "0.1.0"
