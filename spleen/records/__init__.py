"""The files of a run folder: names, reading, writing, state."""
