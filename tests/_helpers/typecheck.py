"""The run-time type checker of the tests: beartype that, like mypy, takes an int for a float (PEP 484)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
