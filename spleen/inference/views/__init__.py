"""The views of an ensemble: a network along an axis, its variants and its hardware."""
