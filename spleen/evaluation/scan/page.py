"""The page of one scan: viewer, scores, what it holds."""

import math
from collections.abc import Sequence

import numpy as np

from spleen.evaluation.scan.case import Scan
from spleen.evaluation.scan.embedding import MOST_BYTES
from spleen.evaluation.scan.scores import scan_scores
from spleen.evaluation.scan.viewer import make_viewer, times, viewer_scripts
from spleen.imaging.geometry import SHEARED_DEGREES, shear_degrees, shear_note, spacing_mm, voxel_volume_mm3
from spleen.reporting.html import render_page
from spleen.reporting.tables import Cell

Table = tuple[list[str], list[list[Cell]]]

_TOLERANCE_MM = 1.0  # of the surface Dice, as in `spleen evaluate`


def to_page(
    scan: Scan,
    identifying: bool = False,
    back: str | None = None,
    most_bytes: int = MOST_BYTES,
    notes: Sequence[tuple[str, str]] = (),
) -> str:
    """The whole page as text; nothing but the case id tells where the scan comes from, unless `identifying`.

    `back` is a relative link to an overview; `notes` are further names and facts. Raises InputError where nothing
    of the image fits `most_bytes`.
    """
    return render_page(
        "scan.html.jinja",
        scripts=viewer_scripts(),
        kind="scan",
        title=scan.case_id,
        about=_about(scan),
        back=back,
        viewer=make_viewer(scan, most_bytes),
        scores=_scores(scan),
        facts=[*notes, *_facts(scan)] + (list(scan.origin) if identifying else []),
    )


def _about(scan: Scan) -> str:
    what = {0: "Image without a mask", 1: f"Image with its {next(iter(scan.masks), '')}", 2: "Prediction and reference"}
    return what[len(scan.masks)] + (f": {', '.join(scan.scored_classes)}" if scan.classes else "")


def _scores(scan: Scan) -> Table | None:
    """Scores where there are both masks, else the volumes."""
    if not scan.masks or not scan.classes:
        return None
    if scan.reference is None or scan.prediction is None:
        mask = next(iter(scan.masks.values()))
        ml = voxel_volume_mm3(scan.affine) / 1000
        counts = {name: int(np.isin(mask, numbers).sum()) for name, numbers in scan.scored_classes.items()}
        return ["class", "volume (ml)", "voxels"], [
            [name, _digits(count * ml), count] for name, count in counts.items()
        ]
    rows: list[list[Cell]] = [
        [
            score.class_name,
            _digits(score.dice),
            _digits(score.hausdorff95_mm),
            _digits(score.average_surface_distance_mm),
            _digits(score.surface_dice),
            _digits(score.volume_reference_ml),
            _digits(score.volume_prediction_ml),
        ]
        for score in scan_scores(scan, _TOLERANCE_MM)
    ]
    columns = ["class", "Dice", "HD95 (mm)", "mean surface distance (mm)", f"surface Dice at {_TOLERANCE_MM:g} mm"]
    return [*columns, "reference (ml)", "prediction (ml)"], rows


def _digits(value: float) -> Cell:
    if math.isnan(value):
        return None
    return "∞" if math.isinf(value) else float(f"{value:.4g}")


def _facts(scan: Scan) -> list[tuple[str, str]]:
    spacing = " × ".join(f"{length:.6g}" for length in spacing_mm(scan.affine))
    facts = [("voxels", f"{times(scan.image.shape)} (from left, posterior, inferior)"), ("spacing", f"{spacing} mm")]
    if (degrees := shear_degrees(scan.affine)) > SHEARED_DEGREES:
        facts.append(("sheared grid", shear_note(degrees)))
    return facts
