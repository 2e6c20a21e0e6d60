"""A trained network for arrays in memory: `spleen.load_model(RUN).predict(array, affine)`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from jaxtyping import Float32, Integer, Num

from spleen.errors import InputError
from spleen.imaging.geometry import restore_orientation
from spleen.imaging.native import NativeImage, image_from_arrays
from spleen.inference.confidence import ClassConfidence, confidence_scores
from spleen.inference.ensemble import predict_volume
from spleen.inference.loading import TrainedModel, load_trained
from spleen.inference.predict import PredictSettings, make_views, to_label_values
from spleen.models.spec import ModelSpec
from spleen.reporting.tables import Cell, to_html
from spleen.system.hardware import DeviceName
from spleen.types import Affine


@dataclass(frozen=True, repr=False)
class Prediction:
    """A segmented volume, on the grid of the array that was given."""

    mask: Integer[np.ndarray, "i j k"]
    """Label values of the training; 0 is background."""
    probabilities: Float32[np.ndarray, "organ i j k"]
    """Foreground probabilities, one volume per class in the order of `classes`."""
    affine: Affine
    """From voxel indices to world coordinates in mm, as it was given."""
    classes: tuple[ClassConfidence, ...]
    """For each class its name, volume in mm³ and confidence."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Foreground classes in the order of `probabilities`."""
        return tuple(found.class_name for found in self.classes)

    @property
    def volumes_mm3(self) -> dict[str, float]:
        """Predicted volume of each class in mm³."""
        return {found.class_name: found.volume_mm3 for found in self.classes}

    def to_nibabel(self) -> nib.nifti1.Nifti1Image:
        """The mask as a NIfTI image in memory."""
        return nib.nifti1.Nifti1Image(self.mask, self.affine)

    def __repr__(self) -> str:
        volumes = ", ".join(f"{name} {volume:,.0f} mm³" for name, volume in self.volumes_mm3.items())
        return f"Prediction({' × '.join(map(str, self.mask.shape))} voxels; {volumes})"

    def _repr_html_(self) -> str:
        rows: list[list[Cell]] = [
            [found.class_name, found.volume_mm3, found.confidence_score, found.reasons or "-"] for found in self.classes
        ]
        return to_html(["class", "mm³", "confidence score", "to review"], rows)


@dataclass(frozen=True, repr=False)
class Model:
    """A trained network with its preprocessing; `predict` takes arrays and nibabel images."""

    trained: TrainedModel

    @property
    def name(self) -> str:
        """Name of the run folder or checkpoint."""
        return self.trained.name

    @property
    def spec(self) -> ModelSpec:
        """The specification: network, preprocessing, classes."""
        return self.trained.spec

    @property
    def class_names(self) -> tuple[str, ...]:
        """Foreground classes."""
        return self.trained.classes.names

    def predict(
        self,
        image: Num[np.ndarray, "..."] | nib.spatialimages.SpatialImage,
        affine: Num[np.ndarray, "..."] | None = None,
        *,
        tta: bool = False,
        batch_size: int = 8,
        device: DeviceName = "auto",
        precision: Literal["auto", "32", "bf16", "16"] | None = None,
    ) -> Prediction:
        """Segment one volume in memory; the result is on the grid and in the orientation of the input.

        `image` is an array (i, j, k), or (c, i, j, k) if the run was trained on several channels, with the `affine`
        (4 × 4) from voxel indices to world coordinates in mm, RAS; or a nibabel image, which has its own affine and its
        channels, if there are several, in the fourth dimension. Intensities are those of the training, HU for CT.
        `tta` averages over test-time augmentations; `precision` is by default that of the training.
        Raises InputError if the array, its affine or the number of channels does not fit.
        """
        channels, file_affine = _arrays(image, affine)
        native = image_from_arrays(channels, file_affine, self.spec.preprocessing.n_channels)
        settings = PredictSettings(tta=tta, batch_size=batch_size, device=device, precision=precision)
        views = make_views([self.trained], settings)
        found = predict_volume(views, native, self.name, batch_size, True, lambda _: None)
        assert found.probabilities is not None
        voxel_volume_mm3 = float(np.prod(native.spacing_mm))
        names, volumes = self.class_names, self.spec.training_volumes_mm3
        return Prediction(
            mask=_restored(to_label_values(found.mask, self.trained.classes), native),
            probabilities=np.stack([_restored(volume, native) for volume in found.probabilities]),
            affine=file_affine,
            classes=confidence_scores(found, names, volumes, voxel_volume_mm3),
        )

    def __repr__(self) -> str:
        return f"Model({', '.join(f'{name}={value}' for name, value in self._facts())})"

    def _repr_html_(self) -> str:
        return to_html(["", self.name], [[name, str(value)] for name, value in self._facts()])

    def _facts(self) -> Iterator[tuple[str, object]]:
        preprocessing = self.spec.preprocessing
        yield "name", self.name
        yield "classes", ", ".join(self.class_names)
        yield "axis", preprocessing.axis
        yield "img_size", preprocessing.img_size
        yield "network", str(self.spec.network["_target_"]).rpartition(".")[2]


def load_model(run: str | Path, *, allow_custom_code: bool = False) -> Model:
    """Load a run folder or a checkpoint, such as `outputs/latest` or `best.ckpt`, on the CPU.

    No code that comes with the file is run: the network must be a class of this package, MONAI or PyTorch, unless
    `allow_custom_code`. Raises InputError for anything else.
    """
    return Model(load_trained(Path(run), allow_custom_code))


def _arrays(
    image: object, affine: Num[np.ndarray, "..."] | None
) -> tuple[list[Num[np.ndarray, "..."]], Num[np.ndarray, "..."]]:
    """The channels of an input and its affine."""
    if isinstance(image, nib.spatialimages.SpatialImage):
        if affine is not None:
            raise InputError("a nibabel image has its own affine; leave affine out")
        array, own = np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64)
        return ([array] if array.ndim != 4 else list(np.moveaxis(array, 3, 0))), own
    if affine is None:
        raise InputError("an array needs its affine: predict(array, affine), 4 × 4, from voxel indices to mm in RAS")
    array = np.asarray(image)
    return ([array] if array.ndim != 4 else list(array)), np.asarray(affine, np.float64)


def _restored(ras: Num[np.ndarray, "i j k"], image: NativeImage) -> Num[np.ndarray, "i2 j2 k2"]:
    """A RAS array along the axes of the input, contiguous."""
    return np.ascontiguousarray(restore_orientation(ras, image.file_affine))
