"""Trained networks for arrays in memory: `spleen.load_model(RUN).predict(array, affine)`."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from jaxtyping import Float32, Integer, Num
from nibabel.spatialimages import SpatialImage
from numpy.typing import ArrayLike

from spleen.imaging.classes import in_class
from spleen.imaging.geometry import restore_orientation
from spleen.imaging.native import NativeImage, image_in_memory
from spleen.inference.calibration.applies import find_calibration
from spleen.inference.choice import Choice
from spleen.inference.confidence import ClassConfidence
from spleen.inference.loading import TrainedModel, load_ensemble
from spleen.inference.outputs import PredictedImage, to_label_values
from spleen.inference.predict import Paths, listed, predict_image
from spleen.inference.report.estimates import dice_text, row_of, volume_text
from spleen.inference.settings import PredictSettings, postprocess_settings
from spleen.inference.views.build import make_views
from spleen.reporting.tables import Cell, to_html
from spleen.system.hardware import DeviceName
from spleen.types import Affine

log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False, eq=False)
class Prediction:
    """A segmented volume, on the grid and in the orientation of the array that was given."""

    mask: Integer[np.ndarray, "i j k"]
    """Label values of the training; 0 is background. Of overlapping classes, the one on top."""
    probabilities: Float32[np.ndarray, "organ i j k"] | None
    """Foreground probabilities, one volume per class in the order of `class_names`; None if they were not requested."""
    affine: Affine
    """From voxel indices to world coordinates in mm, as it was given."""
    class_names: tuple[str, ...]
    """Foreground classes in the order of `probabilities`."""
    volumes_mm3: dict[str, float]
    """Volume of each class in the mask, in mm³."""
    confidence: tuple[ClassConfidence, ...]
    """One entry per class, from the mask before post-processing."""
    implausible_units: str | None
    """Why the intensities of the image do not match the training, if they do not."""

    def to_nibabel(self) -> nib.nifti1.Nifti1Image:
        """The mask as a NIfTI image in memory."""
        return nib.nifti1.Nifti1Image(self.mask, self.affine)

    def __repr__(self) -> str:
        volumes = ", ".join(f"{name} {volume:,.0f} mm³" for name, volume in self.volumes_mm3.items())
        return f"Prediction({' × '.join(map(str, self.mask.shape))} voxels; {volumes})"

    def _repr_html_(self) -> str:
        rows: list[list[Cell]] = [
            [
                each.class_name,
                self.volumes_mm3[each.class_name],
                volume_text(row_of(each)),
                dice_text(row_of(each)),
                each.confidence_score,
                each.reasons or "-",
            ]
            for each in self.confidence
        ]
        return to_html(["class", "mm³", "ml (95 % interval)", "expected Dice", "confidence score", "to review"], rows)


@dataclass(frozen=True, repr=False, eq=False)
class Model:
    """One trained network, or several whose probabilities are averaged, with their preprocessing."""

    networks: tuple[TrainedModel, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Foreground classes."""
        return self.networks[0].classes.names

    @property
    def n_channels(self) -> int:
        """Number of channels that an image must have."""
        return self.networks[0].preprocessing.n_channels

    def predict(
        self,
        image: Num[np.ndarray, "..."] | SpatialImage,
        affine: ArrayLike | None = None,
        *,
        tta: bool = False,
        flips: Sequence[str] = (),
        weights: Sequence[float] | None = None,
        probabilities: bool = True,
        keep_largest: Sequence[str] = (),
        fill_holes: bool = False,
        min_volume_mm3: float = 0.0,
        batch_size: int = 8,
        device: DeviceName = "auto",
        precision: str | None = None,
    ) -> Prediction:
        """Segment one volume in memory: the same mask that `spleen predict` writes for the same volume in a file.

        `image` is an array (i, j, k), or (c, i, j, k) if the run was trained on several channels, with the `affine`
        (4 × 4) from voxel indices to world coordinates in mm, RAS; or a nibabel image, which has its own affine and its
        channels, if there are several, in the fourth dimension. Intensities are those of the training, HU for CT. The
        image is not changed. The other arguments are those of `PredictSettings`; without `probabilities`, 4 bytes per
        voxel and class are saved.
        Raises InputError if the array, its affine or the number of channels does not fit, and for invalid settings.
        """
        settings = PredictSettings(
            weights=None if weights is None else tuple(weights),
            tta=tta,
            flips=_names(flips),
            probabilities=probabilities,
            keep_largest=_names(keep_largest),
            fill_holes=fill_holes,
            min_volume_mm3=min_volume_mm3,
            batch_size=batch_size,
            device=device,
            precision=precision,
        )
        views = make_views(self.networks, settings)
        cleanup = postprocess_settings(self.networks[0].classes, settings)
        native = image_in_memory(image, affine, self.n_channels)
        calibration = find_calibration(self.networks, settings).calibration
        predicted = predict_image(views, native, "the image", settings, cleanup, lambda _: None, calibration)
        if predicted.implausible_units:
            log.warning("%s; the model expects Hounsfield units", predicted.implausible_units)
        own_affine = image.affine if isinstance(image, SpatialImage) else affine
        return self._prediction(predicted, native, np.array(own_affine, np.float64))

    def _prediction(self, predicted: PredictedImage, native: NativeImage, affine: Affine) -> Prediction:
        numbers, regions = range(1, 1 + len(self.class_names)), self.networks[0].classes.regions
        volumes_mm3 = [native.volume_mm3(in_class(predicted.mask, number, regions)) for number in numbers]
        mask, maps = to_label_values(predicted.mask, self.networks[0].classes), predicted.probabilities
        return Prediction(
            mask=np.ascontiguousarray(restore_orientation(mask, native.file_affine)),
            probabilities=None if maps is None else _restored(maps, native.file_affine),
            affine=affine,
            class_names=self.class_names,
            volumes_mm3=dict(zip(self.class_names, volumes_mm3, strict=True)),
            confidence=predicted.confidence,
            implausible_units=predicted.implausible_units,
        )

    def __repr__(self) -> str:
        runs = ", ".join(f"{each.name}: {each.preprocessing.axis}" for each in self.networks)
        return f"Model({runs}; {', '.join(self.class_names)})"

    def _repr_html_(self) -> str:
        columns = ["run", "classes", "axis", "img_size", "channels", "network"]
        return to_html(columns, [list(_facts(each)) for each in self.networks])


def load_model(
    runs: Paths,
    *,
    choose: Choice | None = None,
    rename_classes: Mapping[str, str] | None = None,
    allow_custom_code: bool = False,
) -> Model:
    """Load a run folder or a checkpoint, such as `outputs/latest` or `best.ckpt`, on the CPU.

    Several runs, as a list or as a folder of runs, are averaged. The runs of a folder must be of one arm, which differ
    in axis, fold and seed only; of a sweep of settings, `choose="best"` takes the best arm by validation Dice, "all"
    every run. `rename_classes` maps names of classes to new ones, for runs that call the same label values
    differently. No code that comes with the files is run: the networks must be classes of this package, PyTorch, MONAI
    or segmentation_models_pytorch, unless `allow_custom_code`.
    Raises InputError for anything else, and for runs that differ in their classes or channels.
    """
    return Model(tuple(load_ensemble(listed(runs, "run"), allow_custom_code, choose, rename_classes)))


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _restored(maps: Float32[np.ndarray, "organ i j k"], affine: Affine) -> Float32[np.ndarray, "organ i2 j2 k2"]:
    """RAS maps along the axes of the input; a view, because they are large."""
    return np.moveaxis(restore_orientation(np.moveaxis(maps, 0, -1), affine), -1, 0)


def _facts(model: TrainedModel) -> Iterator[Cell]:
    preprocessing = model.preprocessing
    yield model.name
    yield ", ".join(model.classes.names)
    yield preprocessing.axis
    yield str(preprocessing.img_size)
    yield preprocessing.n_channels
    yield str(model.spec.network["_target_"]).rpartition(".")[2]
