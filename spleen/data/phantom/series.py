"""Phantoms as files: patients scanned once or at several times, with the change of the spleen that is to be found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from spleen.data.phantom.render import FIRST_VISIT, Phantom, make_phantom
from spleen.data.phantom.visit import later_visit
from spleen.errors import InputError
from spleen.imaging.geometry import voxel_volume_mm3
from spleen.imaging.nifti import write_volume
from spleen.reporting.csv_text import to_csv
from spleen.system.files import write_text

Advance = Callable[[str, int, int], None]
"""Called before each scan with its name, the scans written, and all scans."""

SCANS = "scans.csv"
COLUMNS = ("subject", "date", "image", "label", "group", "spleen_ml", "change_percent")
_FIRST_DATE = date(2024, 1, 15)
_BETWEEN = timedelta(days=182)


@dataclass(frozen=True)
class PhantomSettings:
    """Which patients, and how they are scanned."""

    seeds: Sequence[int] = (0,)
    """One patient each."""
    changes: Sequence[float] = ()
    """Of the spleen at each later visit, as a fraction of its volume at the first."""
    matrix: int = 128
    n_slices: int = 90
    noise_hu: float = 12.0


def write_phantoms(folder: Path, settings: PhantomSettings, advance: Advance, overwrite: bool = False) -> Path:
    """Write images/, labels/ and, when all are there, scans.csv, whose path is returned.

    `spleen_ml` and `change_percent` in scans.csv are measured on the labels. Raises InputError for values that
    `make_phantom` and `later_visit` refuse, and for a folder that has a scans.csv, unless `overwrite`.
    """
    table = folder / SCANS
    if table.exists() and not overwrite:
        raise InputError(f"{table} exists already; give another folder, or add --overwrite to replace the phantoms")
    visits = {
        (seed, number): later_visit(seed, number, settings.changes[number - 1]) if number else FIRST_VISIT
        for seed in settings.seeds
        for number in range(1 + len(settings.changes))
    }
    rows: list[Sequence[object]] = [COLUMNS]
    first_ml: dict[int, float] = {}
    for done, ((seed, number), visit) in enumerate(visits.items()):
        subject, day = f"phantom_{seed}", (_FIRST_DATE + number * _BETWEEN).isoformat()
        name = f"{subject}_{day}.nii.gz"
        advance(name, done, len(visits))
        phantom = make_phantom(settings.matrix, settings.n_slices, seed, settings.noise_hu, visit)
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        write_volume(folder / "images" / name, phantom.hu, phantom.affine)
        write_volume(folder / "labels" / name, phantom.label, phantom.affine)
        ml = _spleen_ml(phantom)
        change = ml / first_ml.setdefault(seed, ml) - 1
        rows.append((subject, day, f"images/{name}", f"labels/{name}", subject, f"{ml:.3f}", f"{100 * change:.2f}"))
    write_text(table, to_csv(rows))
    return table


def _spleen_ml(phantom: Phantom) -> float:
    return float(phantom.label.sum()) * voxel_volume_mm3(phantom.affine) / 1000
