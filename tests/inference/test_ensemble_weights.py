"""Fitted weights, against every combination of weights on a grid."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from spleen.errors import InputError
from spleen.imaging.files import ImageFiles
from spleen.inference.ensemble import View
from spleen.inference.ensemble_weights import FittedWeights, fit_weights
from tests._helpers.handmade import Pointwise, intensities, view
from tests._helpers.nifti import save

SHAPE = (9, 9, 5)
GRID = np.diag([1.0, 1.0, 1.0, 1.0])


def write_case(folder: Path, name: str, image: np.ndarray, organ: np.ndarray) -> tuple[ImageFiles, Path]:
    folder.mkdir(exist_ok=True)
    return (
        ImageFiles(name, (save(folder / f"{name}.nii", image.astype(np.float32), GRID),)),
        save(folder / f"{name}_label.nii", organ.astype(np.uint8), GRID),
    )


def fit(views: Sequence[View], cases: dict[str, tuple[ImageFiles, Path]]) -> FittedWeights:
    return fit_weights(views, cases, 4, lambda name, done, total: None)


def mean_dice(weights: Sequence[float], stacks: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Mean Dice of weighted probabilities (view, voxel) over cases, worked without the package."""
    scores = []
    for probabilities, organ in stacks:
        mask = np.tensordot(np.float32(weights), np.float32(probabilities), axes=1) > 0.5
        scores.append(2 * np.count_nonzero(mask & organ) / (np.count_nonzero(mask) + np.count_nonzero(organ)))
    return float(np.mean(scores))


def test_all_weight_goes_from_a_useless_view_to_a_perfect_one(tmp_path: Path) -> None:
    """One view sees the organ; the other is sure of the opposite."""
    image = intensities(SHAPE)
    cases = {"a": write_case(tmp_path, "a", image, image > 0.25)}
    perfect, opposite = Pointwise([8.0], [-2.06]), Pointwise([-16.0], [4.0])
    found = fit([view(opposite, "axial", 9), view(perfect, "coronal", 9)], cases)
    assert found.dice == 1.0
    assert found.dice_equal < 0.5
    # Just inside the organ, at 17/64, the two say 0.516 and 0.438: more than 0.79 of the first is needed. Of the many
    # weights that are as good, those nearest to equal ones are taken.
    assert 0.79 < found.weights[1] < 0.9
    only = fit([view(Pointwise([0.0], [30.0]), "axial", 9), view(perfect, "coronal", 9)], cases)
    assert only.weights == (0.0, 1.0)  # a view that always sees an organ spoils it with any weight
    assert only.dice == 1.0


def test_equal_views_keep_equal_weights(tmp_path: Path) -> None:
    image = intensities(SHAPE)
    cases = {"a": write_case(tmp_path, "a", image, image > 0.1)}
    found = fit([view(Pointwise([8.0], [0.0]), axis, 9) for axis in ("axial", "coronal", "sagittal")], cases)
    assert found.weights == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=1e-6)
    assert found.dice == found.dice_equal


@pytest.mark.parametrize("n_views", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_no_weights_on_a_fine_grid_are_better(tmp_path: Path, n_views: int, seed: int) -> None:
    """Noisy views of two cases: each network reads its own bits of the intensities."""
    random = np.random.default_rng(seed)
    bends = [(random.uniform(-6, 12), random.uniform(-3, 3)) for _ in range(n_views)]
    cases, stacks = {}, []
    for name in ("a", "b"):
        image = intensities(SHAPE, int(random.integers(1000)))
        organ = (image + random.normal(0, 0.4, SHAPE)) > 0.3
        cases[name] = write_case(tmp_path, name, image, organ)
        stacks.append((np.stack([expit(slope * image + offset) for slope, offset in bends]), organ))
    axes = ("axial", "coronal", "sagittal")
    views = [view(Pointwise([slope], [offset]), axis, 9) for (slope, offset), axis in zip(bends, axes, strict=False)]
    found = fit(views, cases)
    assert found.dice == pytest.approx(mean_dice(found.weights, stacks), abs=1e-3)
    assert found.dice_equal == pytest.approx(mean_dice([1 / n_views] * n_views, stacks), abs=1e-3)
    assert found.dice >= found.dice_equal
    assert sum(found.weights) == pytest.approx(1, abs=1e-5)
    steps = [combination for combination in product(range(21), repeat=n_views) if sum(combination) == 20]
    best = max(mean_dice(np.array(combination) / 20, stacks) for combination in steps)
    assert found.dice >= best - 1e-6


def test_cases_and_classes_count_alike_and_those_that_hold_nothing_are_left_out(tmp_path: Path) -> None:
    image = intensities(SHAPE)
    good, empty = write_case(tmp_path, "a", image, image > 0), write_case(tmp_path, "b", -np.abs(image), image > 2)
    views = [view(Pointwise([20.0], [-0.1]), axis, 9) for axis in ("axial", "coronal")]
    assert fit(views, {"a": good, "b": empty}).dice == fit(views, {"a": good}).dice == 1.0
    with pytest.raises(InputError, match="no case contains any class"):
        fit(views, {"b": empty})


def test_one_view_has_nothing_to_be_weighed_against(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fitting weights needs at least two runs"):
        fit([view(Pointwise([1.0], [0.0]), "axial", 9)], {})


def test_a_label_on_another_grid_is_reported(tmp_path: Path) -> None:
    image, _ = write_case(tmp_path, "a", intensities(SHAPE), intensities(SHAPE) > 0)
    moved = GRID.copy()
    moved[0, 3] = 2.0
    label = save(tmp_path / "moved.nii", (intensities(SHAPE) > 0).astype(np.uint8), moved)
    views = [view(Pointwise([1.0], [0.0]), axis, 9) for axis in ("axial", "coronal")]
    with pytest.raises(InputError, match=r"a\.nii and .*moved\.nii are on different grids.* 2 mm apart"):
        fit(views, {"a": (image, label)})
