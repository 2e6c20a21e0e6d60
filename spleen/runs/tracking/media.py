"""What a wandb run shows beside numbers: slices with layers, tables, pages and checkpoints, as wandb's own types.

wandb is imported only in the functions: a run without it does not need it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from scipy.ndimage import zoom

from spleen.reporting.overlays import SliceView, display_overlay

if TYPE_CHECKING:
    import wandb

_SMALLEST_SIDE = 256
"""Length of the longest side of an image at least, pixels."""


@dataclass(frozen=True)
class Overlay:
    """One slice as an 8-bit greyscale image, overlaid with prediction and reference as label maps."""

    caption: str
    image: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]
    reference: UInt8[np.ndarray, "h w"]
    class_names: dict[int, str]


TableCell = str | int | float | bool | Overlay | None


def overlay_of(name: str, view: SliceView, class_names: Sequence[str]) -> Overlay:
    """A slice in radiological orientation, on square pixels, large enough to be seen."""
    image, prediction, reference = display_overlay(view)
    factor = max(1, math.ceil(_SMALLEST_SIDE / max(image.shape)))
    dice = "n/a" if math.isnan(view.dice) else f"{view.dice:.4f}"
    return Overlay(
        caption=f"{name}: {view.case_id}, {view.axis} slice {view.slice_index}, Dice {dice}",
        image=zoom(image, factor, order=1, mode="nearest", grid_mode=True),
        prediction=_repeat(prediction, factor),
        reference=_repeat(reference, factor),
        class_names=dict(enumerate(class_names, start=1)),
    )


def _repeat(label_map: UInt8[np.ndarray, "h w"], factor: int) -> UInt8[np.ndarray, "H W"]:
    return label_map.repeat(factor, axis=0).repeat(factor, axis=1)


def wandb_image(overlay: Overlay) -> "wandb.Image":
    """An image whose layers prediction and reference can be switched on and off, class by class."""
    import wandb

    label_maps = {"prediction": overlay.prediction, "reference": overlay.reference}
    masks = {
        layer: {"mask_data": label_map, "class_labels": overlay.class_names} for layer, label_map in label_maps.items()
    }
    return wandb.Image(overlay.image, caption=overlay.caption, masks=masks)


def wandb_table(columns: Sequence[str], rows: Sequence[Sequence[TableCell]]) -> "wandb.Table":
    """A table, whose overlays become images with layers."""
    import wandb

    data = [[wandb_image(cell) if isinstance(cell, Overlay) else cell for cell in row] for row in rows]
    return wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)


def wandb_page(path: Path) -> "wandb.Html":
    """A page as it is, without wandb's own style."""
    import wandb

    return wandb.Html(path.read_text(encoding="utf-8"), inject=False)


def log_checkpoint(
    run: "wandb.Run", path: Path, aliases: Sequence[str], description: str, metadata: Mapping[str, object]
) -> None:
    """Log a checkpoint as a version of the run's model artifact."""
    import wandb

    artifact = wandb.Artifact(name=f"model-{run.id}", type="model", description=description, metadata=dict(metadata))
    # Immutable: uploaded in place, without a copy.
    artifact.add_file(str(path), policy="immutable")
    run.log_artifact(artifact, aliases=list(aliases))
