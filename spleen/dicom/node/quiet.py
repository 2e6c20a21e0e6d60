"""What the libraries say of data, which must not end up in a node's log."""

import logging
import warnings


def silence_libraries() -> None:
    """Without the remarks of pydicom and pynetdicom in this process: they quote values of elements, and tracebacks."""
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", category=UserWarning)
