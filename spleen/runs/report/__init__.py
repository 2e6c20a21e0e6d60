"""Tables and figures of one run."""
