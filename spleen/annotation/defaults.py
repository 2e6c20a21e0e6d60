"""Settings of a training on one scan: from its intensities, or from the run that it starts from."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from spleen.data.modality import guess_modality
from spleen.imaging.intensity import CtWindow, MrPercentiles
from spleen.imaging.native import NativeImage
from spleen.inference.loading import load_trained

_INTENSITY = {"CT": "ct", "MR": "mr", "unknown": "zscore"}


def intensity_of(image: NativeImage) -> dict[str, object]:
    """The normalisation that suits the intensities of a scan."""
    modality, _ = guess_modality(np.sort(image.channels[0], axis=None))
    return {"intensity": _INTENSITY[modality]}


def settings_of_run(run: Path) -> dict[str, object]:
    """What a training has to share with the run that it starts from; raises InputError if it is not a run."""
    spec = load_trained(run).spec
    intensity = spec.preprocessing.intensity
    kind = "ct" if isinstance(intensity, CtWindow) else "mr" if isinstance(intensity, MrPercentiles) else "zscore"
    return {
        "init_from": run.absolute(),
        "img_size": spec.preprocessing.img_size,
        "resize": spec.preprocessing.resize,
        "context_slices": spec.context_slices,
        "intensity": kind,
        **{f"intensity.{name}": value for name, value in asdict(intensity).items()},
    }
