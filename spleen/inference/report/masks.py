"""Pages of masks that `spleen predict` has written: one for each case, and an overview of a folder."""

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from spleen.errors import InputError
from spleen.evaluation.class_names import CSV_NAME
from spleen.evaluation.scan.case import Scan, read_scan
from spleen.evaluation.scan.page import to_page
from spleen.evaluation.scan.pictures import Picture
from spleen.evaluation.scan.scores import scan_scores
from spleen.evaluation.scan.viewer import thumbnail
from spleen.imaging.files import FIRST_CHANNEL, case_name, is_there, volumes_by_name
from spleen.inference.record import CHANNEL_SEPARATOR, read_record
from spleen.inference.report.estimates import dice_text, estimate_text, has_intervals, interval_text
from spleen.reporting.html import render_page
from spleen.reporting.tables import Cell
from spleen.system.files import as_utf8, write_text
from spleen.system.text import shortened

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
"""Called before each case with its number from 0, the number of cases, and its name."""

_THUMBNAIL_PIXELS = 240
_UNCALIBRATED = "none: the runs were not calibrated for these predictions; `spleen calibrate` does that"


@dataclass(frozen=True)
class MaskFiles:
    """One predicted case: its files, and its rows of predictions.csv."""

    case_id: str
    mask: Path
    image: Path | None
    """The first channel; None where it has gone."""
    reference: Path | None
    rows: tuple[dict[str, str], ...]
    ignore_value: int | None = None
    """The value of unlabelled voxels in the reference; None for the ignore label of a dataset.json beside it."""


@dataclass
class _Shown:
    """What the overview shows of one case."""

    files: MaskFiles
    link: str | None = None
    picture: Picture | None = None
    dice: dict[str, float] = field(default_factory=dict)
    has_unlabelled: bool = False
    problem: str | None = None


def read_masks_folder(
    folder: Path, images: Path | None = None, labels: Path | None = None, ignore_value: int | None = None
) -> list[MaskFiles]:
    """The cases of a folder's predictions.csv whose masks are there, in its order.

    Images are those that predictions.csv tells, or of the same name in `images`; references are those of the same name
    in `labels`, with `ignore_value` where nobody has labelled. Warns of masks without one. Raises InputError for a
    folder without such a file, and for `images` or `labels` without volumes or without one of a mask's name.
    """
    named_images = {} if images is None else _by_short_name(images)
    references = {} if labels is None else volumes_by_name(labels)
    by_mask: dict[str, list[dict[str, str]]] = {}
    for row in read_record(folder / CSV_NAME):
        by_mask.setdefault(row["prediction"], []).append(row)
    masks = {as_utf8(path.name): path for path in folder.iterdir()}
    cases = []
    for name, rows in by_mask.items():
        if name in masks:
            recorded = Path(rows[0]["image"].split(CHANNEL_SEPARATOR)[0])
            case_id = rows[0]["case_id"]
            image = named_images.get(case_id, recorded if recorded.exists() or is_there(recorded) else None)
            reference = references.get(case_id)
            cases.append(MaskFiles(case_id, masks[name], image, reference, tuple(rows), ignore_value))
    if not cases:
        raise InputError(
            f"{folder / CSV_NAME} names no mask that is in {folder}; predict again, or give another folder"
        )
    _check_names(images, named_images, cases)
    _check_names(labels, references, cases)
    return cases


def _check_names(folder: Path | None, files: Mapping[str, Path], cases: Sequence[MaskFiles]) -> None:
    """Raise InputError if no file of the folder has the name of a case, and warn of cases without a file."""
    without = [case.case_id for case in cases if case.case_id not in files]
    if folder is None or not without:
        return
    if len(without) == len(cases):
        raise InputError(
            f"no file in {folder} is called after a case; the cases are {shortened(without, 3)}, and the files "
            f"{shortened(files, 3)}"
        )
    log.warning("%s has no file for %d of %d cases (%s)", folder, len(without), len(cases), shortened(without, 3))


def _by_short_name(images: Path) -> dict[str, Path]:
    return {name.removesuffix(FIRST_CHANNEL): path for name, path in volumes_by_name(images).items()}


def page_of(mask: Path) -> Path:
    """The page beside a mask."""
    return mask.with_name(f"{case_name(mask)}_page.html")


def write_case_pages(
    masks: Collection[Path], identifying: bool = False, progress: Progress | None = None
) -> tuple[list[Path], list[str]]:
    """Write CASE_page.html beside each of these masks; returns the pages, and the failures in words."""
    cases = [case for folder in {mask.parent: None for mask in masks} for case in read_masks_folder(folder)]
    wanted = [case for case in cases if case.mask in set(masks)]
    pages, failures = [], []
    for number, case in enumerate(wanted):
        if progress is not None:
            progress(number, len(wanted), case.case_id)
        page = page_of(case.mask)
        try:
            write_text(page, to_page(_read(case), identifying, notes=_estimates(case.rows)))
            pages.append(page)
        except Exception as error:  # the masks are there, whatever becomes of a page
            failures.append(f"{page}: {_in_words(error)}")
    return pages, failures


def write_overview(
    folder: Path, cases: Sequence[MaskFiles], output: Path, identifying: bool, progress: Progress | None = None
) -> list[str]:
    """Write the overview of a folder of masks, and a page for each case whose image is there.

    The pages lie in a folder beside `output` that has its name, and are linked relatively. Returns the failures in
    words; the overview shows them too.
    """
    shown = []
    for number, case in enumerate(cases):
        if progress is not None:
            progress(number, len(cases), case.case_id)
        entry = _Shown(case)
        shown.append(entry)
        page = output.with_suffix("") / f"{case_name(case.mask)}.html"
        try:
            scan = _read(case)
            entry.dice = _dice(scan)
            entry.has_unlabelled = scan.unlabelled is not None
            entry.picture = thumbnail(scan, _THUMBNAIL_PIXELS)
            back = f"../{quote(output.name)}"
            write_text(page, to_page(scan, identifying, back, notes=_estimates(case.rows)))
            entry.link = f"{quote(page.parent.name)}/{quote(page.name)}"
        except Exception as error:  # the others continue
            entry.problem = _in_words(error)
    write_text(output, _overview(folder, shown, identifying))
    return [f"{each.files.case_id}: {each.problem}" for each in shown if each.problem is not None]


def recorded_estimates(mask: Path) -> list[tuple[str, str]]:
    """Class and estimate of a mask, as predictions.csv beside it tells; none where that does not name the mask."""
    try:
        rows = [row for row in read_record(mask.with_name(CSV_NAME)) if row["prediction"] == as_utf8(mask.name)]
    except InputError:  # a file of another origin
        return []
    return _estimates(rows)


def _estimates(rows: Sequence[dict[str, str]]) -> list[tuple[str, str]]:
    """Class and estimate, and once what is missing; the volumes are those of the masks before any clean-up."""
    estimates = [(row["class_name"], estimate_text(row)) for row in rows]
    return estimates if any(map(has_intervals, rows)) or not rows else [*estimates, ("95 % intervals", _UNCALIBRATED)]


def _read(case: MaskFiles) -> Scan:
    if case.image is None:
        raise InputError("its image is no longer where predictions.csv says; give its folder with --images")
    return read_scan(case.image, case.reference, case.mask, case_id=case.case_id, ignore_value=case.ignore_value)


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, InputError | OSError) else f"{type(error).__name__}: {error}"


def _dice(scan: Scan) -> dict[str, float]:
    return {score.class_name: score.dice for score in scan_scores(scan, 0.0, surface=False)}


def _overview(folder: Path, shown: Sequence[_Shown], identifying: bool) -> str:
    n_review = sum(row["review"] == "yes" for each in shown for row in each.files.rows)
    has_dice = any(each.dice for each in shown)
    rows = [row for each in shown for row in each.files.rows]
    is_calibrated = any(map(has_intervals, rows))
    volume = ["volume (ml)", "95 % interval (ml)", "expected Dice"] if is_calibrated else ["volume (ml)"]
    columns = ["case", "class", *volume, "components", "confidence", "agreement"]
    unread = "no page: its image could not be read"
    return render_page(
        "masks.html.jinja",
        kind="masks",
        title=f"{len(shown)} predicted cases",
        about=f"{n_review} masks need a review" if n_review else "No mask needs a review by its confidence score",
        cases=[(each.files.case_id, each.link, each.picture) for each in shown],
        has_unlabelled=any(each.has_unlabelled for each in shown),
        columns=[*columns, *["Dice"] * has_dice, "review"],
        rows=[(each.link, _row(each, row, has_dice, is_calibrated)) for each in shown for row in each.files.rows],
        missing=None if is_calibrated else f"95 % intervals: {_UNCALIBRATED}",
        problems=[(each.files.case_id, each.problem if identifying else unread) for each in shown if each.problem],
        facts=[("folder", str(folder.absolute()))] if identifying else [],
    )


def _row(shown: _Shown, row: dict[str, str], has_dice: bool, is_calibrated: bool) -> list[Cell]:
    dice = shown.dice.get(row["class_name"])
    return [
        shown.files.case_id,
        row["class_name"],
        _number(row["volume_mm3"], 0.001),
        *([interval_text(row), dice_text(row)] if is_calibrated else []),
        _number(row["n_components"]),
        _number(row["confidence_score"]),
        _number(row["agreement"]),
        *([None if dice is None or math.isnan(dice) else round(dice, 4)] if has_dice else []),
        row["reasons"] or "no",
    ]


def _number(text: str, factor: float = 1.0) -> Cell:
    try:
        value = factor * float(text)
    except ValueError:
        return text
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else float(f"{value:.4g}")
