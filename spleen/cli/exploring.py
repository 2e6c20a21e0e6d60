"""What `spleen explore` does with its arguments: explore, print, write."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from spleen.errors import InputError
from spleen.exploration.explore import Exploration, explore
from spleen.system.files import temporary_sibling, write_text

_PICTURES = (".png", ".pdf", ".svg")


def run_explore(
    images: Sequence[Path], labels: Sequence[Path], organ: str | None, outputs: Mapping[str, Path | None]
) -> bool:
    """Explore, print the text, write the files under their kinds (csv, json, html, png); True if there are errors.

    Raises InputError for a wrong input, and before anything is read for an output that cannot be written.
    """
    wanted = {kind: path for kind, path in outputs.items() if path is not None}
    for kind, path in wanted.items():
        if kind == "png" and path.suffix.lower() not in _PICTURES:
            raise InputError(f"--png: {path} must end in one of {', '.join(_PICTURES)}")
        _check_writable(path)
    exploration = explore(list(images), list(labels), parse_organ(organ), _show_progress if _on_terminal() else None)
    if _on_terminal():
        print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
    print(exploration)
    for kind, path in wanted.items():
        try:
            _write(kind, exploration, path)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error}") from error
        print(f"wrote {path}")
    return exploration.verdict.n_errors > 0


def parse_organ(text: str | None) -> tuple[int, ...]:
    """Label values such as "1" or "3,4"; none given is none wanted. Raises InputError for anything else."""
    if text is None:
        return ()
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or 0 in values:
        raise InputError(f"--organ must be whole numbers other than 0, such as 1 or 3,4; got {text!r}")
    return values


def _write(kind: str, exploration: Exploration, path: Path) -> None:
    from spleen.exploration.report import files as explore_files
    from spleen.exploration.report import page as explore_page

    if kind == "csv":
        write_text(path, explore_files.to_csv(exploration))
    elif kind == "json":
        write_text(path, explore_files.to_json(exploration))
    elif kind == "html":
        write_text(path, explore_page.to_page(exploration))
    else:
        from spleen.exploration.report.figure import draw_exploration

        draw_exploration(exploration, path)


def _check_writable(path: Path) -> None:
    """Find out before the long work, by an empty file under a temporary name."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file to write")
    trial = temporary_sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            trial.unlink()


def _on_terminal() -> bool:
    return sys.stderr.isatty()


def _show_progress(number: int, n_cases: int, case_id: str) -> None:
    print(f"\r\x1b[2Kreading {number + 1} of {n_cases}: {case_id[:60]}", end="", file=sys.stderr, flush=True)
