"""`spleen phantom`: options and a progress bar."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spleen.errors import InputError

if TYPE_CHECKING:
    from spleen.data.phantom.series import PhantomSettings


def phantom(
    folder: Annotated[Path, typer.Argument(help="Where images/, labels/ and scans.csv are written.")],
    subjects: Annotated[int, typer.Option(help="How many patients.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first patient; the next one has the next seed.")] = 0,
    series: Annotated[bool, typer.Option("--series", help="Scan each patient at several times.")] = False,
    changes: Annotated[
        str | None,
        typer.Option(help="With --series, change of the spleen against the first scan, in percent [-8,0,12]."),
    ] = None,
    matrix: Annotated[int, typer.Option(help="Voxels in plane per side, 32 to 512.")] = 128,
    n_slices: Annotated[int, typer.Option(help="Axial planes, 16 to 450.")] = 90,
    noise_hu: Annotated[float, typer.Option(help="Noise in HU, 0 to 200.")] = 12.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace phantoms that exist.")] = False,
) -> None:
    """Write synthetic abdominal CTs with labels of the spleen, also of one patient at several times.

    Between two scans of a patient breath, position and noise differ, and the spleen changes as asked. scans.csv lists
    the scans, with the volumes of the labels, for `spleen followup` and for data=table.
    """
    settings = _settings(subjects, seed, changes, series, (matrix, n_slices, noise_hu))
    from spleen.data.phantom.series import write_phantoms
    from spleen.system.progress import ProgressBar
    from spleen.system.signals import stop_on_signals

    with stop_on_signals() as stop, ProgressBar("scan", check=stop.check) as bar:
        table = write_phantoms(folder, settings, lambda name, done, total: bar.name_case(done, total, name), overwrite)
    count = subjects * (1 + len(settings.changes))
    print(f"{count} scan(s) of {subjects} phantom(s), with their labels, in {table}")
    if series:
        print(f"next: spleen followup {table} --run RUN --output report")


def _settings(
    subjects: int, seed: int, changes: str | None, series: bool, scan: tuple[int, int, float]
) -> "PhantomSettings":
    from spleen.data.phantom.series import PhantomSettings

    if subjects < 1:
        raise InputError(f"--subjects must be at least 1; got {subjects}")
    if changes is not None and not series:
        raise InputError("--changes belongs to --series; add --series to scan each phantom at several times")
    fractions = _parse_changes(changes or "-8,0,12") if series else ()
    return PhantomSettings(range(seed, seed + subjects), fractions, *scan)


def _parse_changes(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) / 100 for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--changes must be percentages separated by commas, such as -8,0,12; got '{text}'") from error
