"""The run-time type checker of the tests: beartype that, like mypy, accepts an int as a float (PEP 484)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
