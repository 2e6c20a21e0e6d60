"""The range of volumes that a model specification takes from the training cases."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spleen.config.factory import build_spec, complete_spec
from spleen.data.cases import Case
from spleen.data.store.store import open_case
from tests._helpers.nifti import box, counting, ras_affine, save
from tests._helpers.small_run import compose_config, small


@pytest.mark.parametrize(
    ("ignored_mm3", "expected"),
    [
        ((0.0, 0.0), (2.0, 5.0)),
        ((0.0, 90.0), (2.0, 2.0)),  # the second case is only partly labelled
        ((10.0, 90.0), (2.0, 95.0)),  # all of the unknown voxels may be organ
    ],
)
def test_partly_labelled_cases_do_not_narrow_the_range_of_volumes(
    tmp_path: Path, ignored_mm3: tuple[float, float], expected: tuple[float, float]
) -> None:
    image = save(tmp_path / "ct.nii.gz", (counting() - 60).astype(np.int16), ras_affine())
    files = Case("a", (image,), save(tmp_path / "seg.nii.gz", box(), ras_affine()))
    spec = build_spec(compose_config(*small("data.image=a", "data.label=b", "data.label_values=[1]")))
    stored = open_case(files, spec.preprocessing, tmp_path / "cache")
    training = [
        replace(stored, volumes_mm3=(volume,), ignored_volume_mm3=ignored)
        for volume, ignored in zip((2.0, 5.0), ignored_mm3, strict=True)
    ]
    assert complete_spec(spec, training, []).training_volumes_mm3 == (expected,)


def test_a_class_that_only_partly_labelled_cases_label_has_the_range_of_these(tmp_path: Path) -> None:
    image = save(tmp_path / "ct.nii.gz", (counting() - 60).astype(np.int16), ras_affine())
    files = Case("a", (image,), save(tmp_path / "seg.nii.gz", box(), ras_affine()))
    spec = build_spec(
        compose_config(*small("data.image=a", "data.label=b", "data.label_values={spleen: [1], liver: [2]}"))
    )
    stored = open_case(files, spec.preprocessing, tmp_path / "cache")
    spleens = [replace(stored, volumes_mm3=(each, 0.0), unlabelled=frozenset({2})) for each in (2.0, 5.0)]
    liver = replace(stored, volumes_mm3=(0.0, 40.0), unlabelled=frozenset({1}), ignored_volume_mm3=9.0)
    assert complete_spec(spec, [*spleens, liver], []).training_volumes_mm3 == ((2.0, 5.0), (40.0, 49.0))
