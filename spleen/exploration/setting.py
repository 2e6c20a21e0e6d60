"""One suggested setting."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """One setting and why it was chosen. An empty override leaves the default."""

    override: str
    reason: str
