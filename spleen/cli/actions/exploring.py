"""What `spleen explore` does with its arguments: explore, print, write."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from spleen.errors import InputError
from spleen.exploration.explore import explore
from spleen.exploration.window import parse_window
from spleen.reporting.outputs import check_outputs, text_writer, write_outputs
from spleen.system.progress import ProgressBar
from spleen.system.signals import stop_on_signals


def run_explore(
    images: Sequence[Path],
    labels: Sequence[Path],
    organ: str | None,
    outputs: Mapping[str, Path | None],
    above: str | None = None,
    window: str | None = None,
) -> bool:
    """Explore, print the text, write the files of --csv, --json, --output and --png; True if there are errors.

    `above` and `window` are what --above and --window were given. Raises InputError for a wrong input, and before
    anything is read for an output that cannot be written.
    """
    check_outputs(outputs, picture="--png")
    shown_window = parse_window(window) if window is not None else None
    if window is not None and outputs["--output"] is None and outputs["--png"] is None:
        raise InputError("--window is for the slices of --output and --png; give one of them, too")
    values, least = parse_organ(organ), parse_above(above)
    with stop_on_signals() as stop, ProgressBar("case", check=stop.check) as bar:
        exploration = explore(list(images), list(labels), values, bar.name_case, least)
    print(exploration)
    from spleen.exploration.report import files as explore_files
    from spleen.exploration.report.figure import draw_exploration
    from spleen.exploration.report.page import to_page

    write_outputs(
        outputs,
        {
            "--csv": text_writer(lambda: explore_files.to_csv(exploration)),
            "--json": text_writer(lambda: explore_files.to_json(exploration)),
            "--output": text_writer(lambda: to_page(exploration, shown_window)),
            "--png": lambda path: draw_exploration(exploration, path, shown_window),
        },
    )
    return exploration.verdict.n_errors > 0


def parse_above(text: str | None) -> float | None:
    """A number such as 500000 or -1.5e3; None given, None wanted. Raises InputError for anything else."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"--above must be a number in the units of the image, such as 500000; got {text!r}")
    return value


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
