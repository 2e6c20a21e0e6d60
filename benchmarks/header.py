"""The line printed above every benchmark's table: machine, date, versions, commit."""

from datetime import UTC, datetime
from importlib.metadata import version
from platform import python_version

from spleen.runs.summary import git_commit
from spleen.system.hardware import describe_hardware

_PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "numpy", "spleen")


def header() -> str:
    """One line of Markdown with what is needed to compare the numbers below it with others."""
    machine = describe_hardware()
    versions = [f"python {python_version()}", *(f"{name} {version(name)}" for name in _PACKAGES)]
    return (
        f"{machine.processor}, {machine.cores} cores, {machine.threads} threads, {machine.memory_gib:g} GiB, "
        f"GPU: {machine.gpu or 'none'}, {machine.system}; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; "
        f"{', '.join(versions)}, commit {git_commit() or 'unknown'}\n"
    )


def verdict(passed: bool) -> str:
    """The table cell for a target that was reached or missed."""
    return "reached" if passed else "**missed**"
