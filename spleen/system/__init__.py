"""What the operating system and the language give, without knowing the domain."""
