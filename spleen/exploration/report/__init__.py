"""An exploration as text, page, figure and files."""
