"""The cache of preprocessed slices."""
