"""A network in an ensemble."""

from dataclasses import dataclass

from spleen.inference.loading import TrainedModel
from spleen.inference.views.tta import Variant
from spleen.system.hardware import Device


@dataclass(frozen=True)
class View:
    """One model of a fused prediction."""

    model: TrainedModel
    weight: float
    """Its weight in the average; the weights of all views add up to 1."""
    variants: tuple[Variant, ...]
    hardware: Device
    coarse: "View | None" = None
    """Finds the box in which the model predicts (`model.spec.roi`); None: it predicts the whole volume."""
