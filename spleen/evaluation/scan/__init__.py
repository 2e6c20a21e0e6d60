"""One scan with its masks on a page: what is embedded, surfaces, the slices of largest error."""
