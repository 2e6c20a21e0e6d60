"""What a wandb run shows beside numbers: slices with layers, tables, pages and checkpoints, as wandb's own types.

wandb is imported only in the functions: a run without it does not need it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from spleen.records.folder import ROI

if TYPE_CHECKING:
    import wandb


@dataclass(frozen=True)
class Overlay:
    """One slice as an 8-bit greyscale image, overlaid with prediction and reference as label maps."""

    caption: str
    image: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]
    reference: UInt8[np.ndarray, "h w"]
    class_names: dict[int, str]


TableCell = str | int | float | bool | Overlay | None


def wandb_image(overlay: Overlay) -> "wandb.Image":
    """An image whose layers prediction and reference can be switched on and off, class by class."""
    import wandb

    label_maps = {"prediction": overlay.prediction, "reference": overlay.reference}
    masks = {
        layer: {"mask_data": label_map, "class_labels": overlay.class_names} for layer, label_map in label_maps.items()
    }
    return wandb.Image(overlay.image, caption=overlay.caption, masks=masks)


def wandb_table(columns: Sequence[str], rows: Sequence[Sequence[TableCell]]) -> "wandb.Table":
    """A table, whose overlays become images with layers; each column has values of one kind, or None."""
    import wandb

    data = [[wandb_image(cell) if isinstance(cell, Overlay) else cell for cell in row] for row in rows]
    return wandb.Table(columns=list(columns), data=data)


def wandb_page(path: Path) -> "wandb.Html":
    """A page as it is, without wandb's own style."""
    import wandb

    return wandb.Html(path.read_text(encoding="utf-8"), inject=False)


def log_checkpoint(
    run: "wandb.Run", path: Path, aliases: Sequence[str], description: str, metadata: Mapping[str, object]
) -> None:
    """Log a checkpoint as a version of the run's model artifact; that of a cascade with its coarse network."""
    import wandb

    artifact = wandb.Artifact(name=f"model-{run.id}", type="model", description=description, metadata=dict(metadata))
    # Immutable: uploaded in place, without a copy.
    artifact.add_file(str(path), policy="immutable")
    if (coarse := path.with_name(ROI)).is_file():
        artifact.add_file(str(coarse), policy="immutable")
    run.log_artifact(artifact, aliases=list(aliases))
