"""What predictions look like to a reader: the table in the terminal, pages."""
