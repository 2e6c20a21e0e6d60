"""How to predict: what can be set, and how masks are cleaned up."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.postprocessing import PostprocessSettings, check_removable
from spleen.inference.choice import Choice
from spleen.system.hardware import DeviceName


@dataclass(frozen=True)
class PredictSettings:
    """How to predict; the defaults are those of `spleen predict`."""

    weights: tuple[float, ...] | None = None
    """Weight of each run in the average, in their order; None: equal weights."""
    tta: bool = False
    """Test-time augmentation: small shifts, and the flips that a run was trained with."""
    flips: tuple[str, ...] = ()
    """Further anatomical directions to mirror along, even if the training did not."""
    probabilities: bool = False
    keep_largest: tuple[str, ...] = ()
    """Classes of which only the largest component is kept; "all" for every class."""
    fill_holes: bool = False
    min_volume_mm3: float = 0.0
    batch_size: int = 8
    device: DeviceName = "auto"
    precision: str | None = None
    """auto, 32, bf16 or 16; None: that of each run's training."""
    choose: Choice | None = None
    """Of a folder of runs that is a sweep of settings: "best" for the best arm by validation Dice, or "all"."""
    rename_classes: Mapping[str, str] = field(default_factory=dict)
    """Old names of classes and their new ones, to fuse runs that call the same label values differently."""
    allow_custom_code: bool = False
    """Build networks of any class that a checkpoint names, which runs the code of that class."""
    overwrite: bool = False
    skip_existing: bool = False
    held_out: bool = False
    """Predict only cases that runs held out, each with those runs only: a cross-validation without leakage."""


def postprocess_settings(classes: ClassMap, settings: PredictSettings) -> PostprocessSettings:
    """How masks are cleaned up; raises InputError for an unknown class and for invalid numbers."""
    known = {name: index for index, name in enumerate(classes.names, start=1)}
    kept = tuple(known) if "all" in settings.keep_largest else settings.keep_largest
    unknown = [name for name in kept if name not in known]
    if unknown:
        raise InputError(f"keep-largest: no class '{unknown[0]}'; the run has {', '.join(known)}, or give all")
    numbers = tuple(known[name] for name in kept)
    check_removable(classes, known.values() if settings.min_volume_mm3 else numbers)
    if not settings.min_volume_mm3 >= 0:
        raise InputError(f"min-volume-mm3 must be 0 or more; got {settings.min_volume_mm3:g}")
    if settings.batch_size < 1:
        raise InputError(f"batch-size must be at least 1 slice; got {settings.batch_size}")
    return PostprocessSettings(numbers, settings.fill_holes, settings.min_volume_mm3, classes.regions)
