"""Facts about labels, and findings about problematic ones."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from spleen.exploration.facts.header import BYTES_PER_VOXEL, NOT_SET
from tests._helpers.nifti import SHAPE, box, counting, ras_affine, save, save_stored_as
from tests.exploration.test_facts import facts_of, topics


def test_volume_extent_and_touched_borders_match_hand_computed_values(tmp_path):
    label = box(low=(1, 2, 0), high=(3, 6, 2), value=4)  # 2 × 4 × 2 voxels, on the inferior border
    image = save(tmp_path / "ct.nii", counting(), ras_affine())
    case = facts_of(image, save_stored_as(tmp_path / "label.nii", "PIL", label))
    (value,) = case.labels.values
    assert (value.value, value.n_voxels, value.n_components) == (4, 16, 1)
    assert value.volume_mm3 == pytest.approx(16 * 0.8 * 0.8 * 5)
    assert [(e.first, e.last, e.n_slices) for e in value.extents] == [(1, 2, 2), (2, 5, 4), (0, 1, 2)]
    assert value.touches == ("inferior",)
    assert "label touches the border" in topics(case, "warning")
    assert case.labels.organ_per_slice[1] == (0, 0, 4, 4, 4, 4, 0)


def test_components_match_simpleitk(tmp_path):
    rng = np.random.default_rng(6)
    label = (rng.random((11, 9, 7)) < 0.12).astype(np.uint8)
    label[rng.random(label.shape) < 0.06] = 3
    image = save(tmp_path / "ct.nii", counting((11, 9, 7)), ras_affine())
    case = facts_of(image, save(tmp_path / "label.nii", label, ras_affine()))
    for value in case.labels.values:
        mask = sitk.GetImageFromArray((label == value.value).astype(np.uint8))
        shapes = sitk.LabelShapeStatisticsImageFilter()
        shapes.Execute(sitk.ConnectedComponent(mask, True))
        sizes = [shapes.GetNumberOfPixels(number) for number in shapes.GetLabels()]
        assert value.n_components == len(sizes) > 1
        assert value.largest_component_fraction == pytest.approx(max(sizes) / sum(sizes))
    assert "label in several components" in topics(case, "warning")


def test_large_and_negative_label_values_are_counted(tmp_path):
    label = box().astype(np.int32)
    label[4, 6, 2], label[0, 0, 0] = 2_000_000_000, -5
    image = save(tmp_path / "ct.nii", counting(), ras_affine())
    case = facts_of(image, save(tmp_path / "label.nii", label, ras_affine()))
    assert [(v.value, v.n_voxels) for v in case.labels.values] == [(-5, 1), (1, 16), (2_000_000_000, 1)]
    assert "negative label value" in topics(case, "warning")


def test_the_chosen_organ_determines_intensities_slices_and_warnings(tmp_path):
    label = box(high=(3, 6, 3))
    label[4, 3, 1] = 2
    image = save(tmp_path / "ct.nii", counting(), ras_affine())
    case = facts_of(image, save(tmp_path / "label.nii", label, ras_affine()), organ=(2,))
    assert case.intensity.organ.n_voxels == 1
    assert case.intensity.organ.median == counting()[4, 3, 1]
    assert case.labels.organ_voxels == 1
    messages = [f.message for f in case.findings if f.topic == "label touches the border"]
    assert len(messages) == 1
    assert messages[0].startswith("label 2 reaches the right end")


@pytest.mark.parametrize(
    ("label", "organ", "topic"),
    [
        (np.zeros(SHAPE, np.uint8), (), "empty label"),
        (box(), (7,), "organ absent"),
        (box() * np.float32(0.3), (), "label cannot be used"),  # a probability map
        (box((5, 7, 4)), (), "grids disagree"),
    ],
)
def test_unusable_labels_are_errors(tmp_path, label, organ, topic):
    image = save(tmp_path / "ct.nii", counting() - 60, ras_affine())  # negative, so as not to look like a label
    case = facts_of(image, save(tmp_path / "label.nii", label, ras_affine()), organ)
    assert topics(case, "error") == [topic]
    assert case.intensity.organ is None


def test_a_label_with_another_spacing_is_on_a_different_grid(tmp_path):
    image = save(tmp_path / "ct.nii", counting(), ras_affine())
    case = facts_of(image, save(tmp_path / "label.nii", box(), ras_affine((0.8, 0.8, 5.5))))
    assert topics(case, "error") == ["grids disagree"]
    assert case.labels.values[0].volume_mm3 == pytest.approx(16 * 0.8 * 0.8 * 5.5)


def test_an_image_with_two_values_gives_a_warning_that_it_looks_like_a_label(tmp_path):
    case = facts_of(save(tmp_path / "ct.nii", box(), ras_affine()))
    assert "looks like a label map" in topics(case, "warning")
    assert case.intensity.n_distinct == 2


def test_a_label_in_air_gives_a_warning(tmp_path):
    hu = np.full((9, 8, 7), -1000, np.int16)
    hu[:4] = np.arange(4 * 8 * 7).reshape(4, 8, 7)
    label = np.zeros(hu.shape, np.uint8)
    label[6:8, 2:5, 2:5] = 1
    case = facts_of(save(tmp_path / "ct.nii", hu, ras_affine()), save(tmp_path / "label.nii", label, ras_affine()))
    assert "organ in air" in topics(case, "warning")


def test_the_real_ct_has_its_published_volume(spleen_ct):
    case = facts_of(spleen_ct / "image.nii.gz", spleen_ct / "label.nii.gz")
    assert case.labels.values[0].volume_mm3 == pytest.approx(255_204)
    assert case.intensity.modality == "CT"
    assert case.labels.values[0].touches == ("inferior", "superior")
    assert case.image_header.spatial_unit == NOT_SET
    assert case.is_sound


@pytest.mark.slow
def test_peak_memory_of_a_case_stays_within_the_documented_bound(tmp_path):
    """The label reaches from corner to corner, so that its bounding box is the whole volume."""
    shape = (300, 300, 300)
    random = np.random.default_rng(0)
    hu = random.integers(-1000, 1000, shape, dtype=np.int16)
    label = np.zeros(shape, np.uint8)
    label[50:250, 50:250, 50:250] = 1
    label[100:150, 100:150, 100:150] = 2
    label[0, 0, 0] = label[-1, -1, -1] = 1
    image, seg = save(tmp_path / "ct.nii", hu, ras_affine()), save(tmp_path / "seg.nii", label, ras_affine())
    small = save(tmp_path / "small.nii", hu[:9, :9, :9], ras_affine())

    def peak_bytes(*paths: Path) -> int:
        program = (
            "import resource, sys; from pathlib import Path; from spleen.exploration.explore import explore;"
            "explore(*map(Path, sys.argv[1:])); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True)
        return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)

    assert peak_bytes(image, seg) - peak_bytes(small) < BYTES_PER_VOXEL * hu.size
