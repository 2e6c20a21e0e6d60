"""What commands do with their parsed arguments, apart from these because it imports heavy packages."""
