"""The application: one run, many runs, and what they say."""
