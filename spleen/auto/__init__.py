"""The best model in a given time: a look at the data, rounds of short runs, and the final ones."""
