"""What `spleen explore` does with its arguments: explore, print, write."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from spleen.errors import InputError
from spleen.exploration.explore import explore
from spleen.reporting.outputs import check_outputs, text_writer, write_outputs
from spleen.system.progress import ProgressBar
from spleen.system.signals import stop_on_signals


def run_explore(
    images: Sequence[Path], labels: Sequence[Path], organ: str | None, outputs: Mapping[str, Path | None]
) -> bool:
    """Explore, print the text, write the files of --csv, --json, --output and --png; True if there are errors.

    Raises InputError for a wrong input, and before anything is read for an output that cannot be written.
    """
    check_outputs(outputs, picture="--png")
    with stop_on_signals() as stop, ProgressBar("case", check=stop.check) as bar:
        exploration = explore(list(images), list(labels), parse_organ(organ), bar.name_case)
    print(exploration)
    from spleen.exploration.report import files as explore_files
    from spleen.exploration.report.figure import draw_exploration
    from spleen.exploration.report.page import to_page

    write_outputs(
        outputs,
        {
            "--csv": text_writer(lambda: explore_files.to_csv(exploration)),
            "--json": text_writer(lambda: explore_files.to_json(exploration)),
            "--output": text_writer(lambda: to_page(exploration)),
            "--png": lambda path: draw_exploration(exploration, path),
        },
    )
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
