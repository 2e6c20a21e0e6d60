"""The parts of `spleen evaluate` and `spleen compare`: scores of one case, their summary, and tables read back."""
