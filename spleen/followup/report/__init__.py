"""What a follow-up looks like: the table, the text in the terminal, the page."""
