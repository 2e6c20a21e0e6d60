"""How long a training takes, and when it ends by the clock."""
