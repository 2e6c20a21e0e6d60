"""Label less: which slices to label next, and the rest of a label from a few labelled slices."""
