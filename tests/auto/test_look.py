"""What a search takes from its look at the data."""

from pathlib import Path

import nibabel as nib
import numpy as np

from spleen.auto.look import Look, look
from spleen.config.overrides import key_of
from spleen.runs.api import compose_config
from tests._helpers.many_cases import ManyCases, many_cases
from tests._helpers.nifti import ras_affine, save


def looked(data: ManyCases, *given: str) -> Look:
    return look(compose_config([*data.decathlon, *given]), {key_of(each) for each in given}, 60.0)


def test_images_may_have_channels_in_their_fourth_dimension(tmp_path: Path) -> None:
    """Three cases of 8 axial slices, of the finest pixels: 20 % for the test, and 15 % of the rest for validation."""
    seen = looked(many_cases(tmp_path / "Task77", 3, channels=2))
    assert seen.axes[0] == "axial"
    assert (seen.n_training_slices, seen.n_val_slices, seen.n_test_slices) == (16, 3, 5)


def test_small_slices_that_are_stretched_have_a_size_instead_of_their_voxels(tmp_path: Path) -> None:
    """Axial slices of 24 × 20 pixels, all of 1.5 mm."""
    data = many_cases(tmp_path / "Task77", 3)
    for path in data.root.glob("*/*.nii.gz"):
        save(path, np.asarray(nib.load(path).dataobj), ras_affine((1.5, 1.5, 3.0)))
    assert "img_size=native" in dict(looked(data).settings)
    stretched = [override for override, _ in looked(data, "resize=stretch").settings]
    assert "img_size=24" in stretched
    compose_config([*data.decathlon, "resize=stretch", *stretched])
