"""The files of a run folder: their names, what is written to them and read from them, and the state of the run."""
