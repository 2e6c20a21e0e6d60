"""Settings of a training on one scan: from its intensities, or from the run that it starts from."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from spleen.data.modality import guess_modality
from spleen.imaging.intensity import CtWindow, MrPercentiles
from spleen.imaging.native import NativeImage
from spleen.inference.loading import TrainedModel, load_trained
from spleen.records.folder import run_folder_of
from spleen.records.reading import FinishedRun, read_run

_INTENSITY = {"CT": "ct", "MR": "mr", "unknown": "zscore"}


def intensity_of(image: NativeImage) -> dict[str, object]:
    """The normalisation that suits the intensities of a scan."""
    modality, _ = guess_modality(np.sort(image.channels[0], axis=None))
    return {"intensity": _INTENSITY[modality]}


def settings_of_run(run: Path, allow_custom_code: bool = False) -> dict[str, object]:
    """What a training has to share with the run that it starts from, as values of overrides.

    Raises InputError if it is not a run, or without `allow_custom_code` one whose network is of no trusted class.
    """
    model = load_trained(run, allow_custom_code)
    spec = model.spec
    intensity = spec.preprocessing.intensity
    kind = "ct" if isinstance(intensity, CtWindow) else "mr" if isinstance(intensity, MrPercentiles) else "zscore"
    return {
        "init_from": run.absolute(),
        **_network_of(model),
        "img_size": spec.preprocessing.img_size,
        "resize": spec.preprocessing.resize,
        "crop_size": spec.crop_size,
        "context_slices": spec.context_slices,
        "intensity": kind,
        **{f"intensity.{name}": value for name, value in asdict(intensity).items()},
    }


def _network_of(model: TrainedModel) -> dict[str, object]:
    """The run's network, if its folder tells which arguments are numbers of channels; a checkpoint alone does not."""
    folder, spec = run_folder_of(model.checkpoint), model.spec
    record = None if folder is None else read_run(folder)
    if not isinstance(record, FinishedRun):
        return {}
    arguments = {key: record.settings.get(f"model.{key}") for key in ("in_channels_argument", "out_channels_argument")}
    return {
        "model.name": record.settings.get("model.name"),
        **{f"model.{key}": name for key, name in arguments.items()},
        "model.size_multiple": spec.preprocessing.size_multiple,
        "model.dimensions": 2 if spec.patch_size is None else 3,
        "~model.network": None,  # whose arguments would stay beside those that are added
        "+model.network": {key: value for key, value in spec.network.items() if key not in arguments.values()},
    }
