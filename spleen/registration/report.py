"""What an alignment found, as text."""

import numpy as np

from spleen.registration.align import Alignment
from spleen.registration.grids import Grid
from spleen.registration.transforms import Motion, motion
from spleen.reporting.tables import Cell, Column, render_table
from spleen.types import LabelVolume


def label_dice(first: LabelVolume, second: LabelVolume) -> dict[int, float]:
    """2 |A ∩ B| / (|A| + |B|) of every value but 0 that either label map on the same grid holds."""
    values = np.union1d(first, second)
    found = {}
    for value in (int(each) for each in values if each != 0):
        a, b = first == value, second == value
        found[value] = 2 * int(np.count_nonzero(a & b)) / (int(np.count_nonzero(a)) + int(np.count_nonzero(b)))
    return found


def to_text(alignment: Alignment, fixed: Grid, dice: tuple[dict[int, float], dict[int, float]] | None = None) -> str:
    """A table of before and after, and what the transform does; `dice` is that of the labels before and after."""
    rows: list[list[Cell]] = [["mutual information (nats)", alignment.before, alignment.after]]
    if dice is not None:
        rows += [[f"Dice of label {value}", dice[0].get(value), after] for value, after in dice[1].items()]
    table = render_table(f"{alignment.kind} alignment", [Column("", is_name=True), "before", "after"], rows)
    lines = [table.rstrip(), *_motion_lines(alignment, motion(alignment.transform, fixed))]
    if alignment.before is None:
        lines.append("as the scanner placed them, the images hardly overlap, so nothing can be said of before")
    if alignment.kind != "rigid":
        smallest, largest = alignment.jacobian
        lines.append(f"volume changes by factors of {smallest:.3f} to {largest:.3f} (determinant of the Jacobian)")
    return "\n".join(lines)


def fold_warning(alignment: Alignment) -> str | None:
    """What to know of a transform that folds space; None for one that does not."""
    if alignment.folded_fraction == 0:
        return None
    return (
        f"space folds in {100 * alignment.folded_fraction:.2g} % of the fixed image (smallest determinant of the "
        f"Jacobian {alignment.jacobian[0]:.2f}): the deformation is impossible there and has no inverse; use "
        "--kind affine, or align by the organ alone with --mask"
    )


def _motion_lines(alignment: Alignment, found: Motion) -> list[str]:
    right, anterior, superior = found.shift_mm
    part = "" if alignment.kind != "deformable" else ", before the deformation"
    lines = [
        f"from fixed to moving: turned by {found.rotation_degrees:.2f}°; the middle of the fixed image shifted by "
        f"{found.distance_mm:.2f} mm (right {right:+.2f}, anterior {anterior:+.2f}, superior {superior:+.2f}){part}"
    ]
    if alignment.kind != "rigid":
        lines.append(
            f"stretched by {' × '.join(f'{scale:.3f}' for scale in found.scales)} along its principal directions"
        )
    return lines
