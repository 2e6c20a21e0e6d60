"""Files that a command writes on request (--csv, --json, --plot): checked before the long work, written after it."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from spleen.errors import InputError
from spleen.system.files import temporary_sibling, write_text

PICTURES = (".png", ".pdf", ".svg")


def check_outputs(outputs: Mapping[str, Path | None], picture: str = "") -> None:
    """Find out before the long work whether files can be written; the keys are the names of the options.

    `picture` is the option that takes the name of a picture. Raises InputError for a folder, a place that cannot be
    written, one name given twice, and a picture of another kind than .png, .pdf or .svg.
    """
    given = {option: path for option, path in outputs.items() if path is not None}
    for option, path in given.items():
        twice = [other for other, same in given.items() if other != option and same.absolute() == path.absolute()]
        if twice:
            raise InputError(f"{option} and {twice[0]} would both write {path}; give them different names")
        if path.is_dir():
            raise InputError(f"{option}: {path} is a folder; give the name of a file to write")
        if option == picture and path.suffix.lower() not in PICTURES:
            raise InputError(f"{option}: {path} must end in one of {', '.join(PICTURES)}")
        trial = temporary_sibling(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            trial.touch()
        except OSError as error:
            raise InputError(f"{option}: {path} cannot be written: {error.strerror or error}") from error
        finally:
            with suppress(OSError):  # a parent that is a file
                trial.unlink(missing_ok=True)


def write_outputs(outputs: Mapping[str, Path | None], writers: Mapping[str, Callable[[Path], None]]) -> None:
    """Write every file that was asked for, whole or not at all; one that fails does not keep the others from it.

    Both arguments have the names of the options as keys. Raises InputError at the end, naming the files that could not
    be written.
    """
    failed = []
    for option, path in outputs.items():
        if path is None:
            continue
        try:
            writers[option](path)
            print(f"wrote {path}")
        except OSError as error:
            failed.append(f"{option}: {path} could not be written: {error.strerror or error}")
    if failed:
        raise InputError("\n".join([*failed, "the tables above are complete; free some space or give another place"]))


def text_writer(make_text: Callable[[], str]) -> Callable[[Path], None]:
    """A function for `write_outputs` that writes a text, made only when it is its turn."""
    return lambda path: write_text(path, make_text())
