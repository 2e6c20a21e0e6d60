"""What a follow-up leaves behind: the table and the page."""
