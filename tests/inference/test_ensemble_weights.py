"""Fitted ensemble weights, compared with a grid search."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from spleen.errors import InputError
from spleen.imaging.files import ImageFiles
from spleen.inference.calibration.ensemble_weights import FittedWeights, fit_weights
from spleen.inference.views.view import View
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
    """Mean Dice over cases of the weighted probabilities (view, voxel), computed without the package."""
    scores = []
    for probabilities, organ in stacks:
        mask = np.tensordot(np.float32(weights), np.float32(probabilities), axes=1) > 0.5
        scores.append(2 * np.count_nonzero(mask & organ) / (np.count_nonzero(mask) + np.count_nonzero(organ)))
    return float(np.mean(scores))


def test_a_perfect_view_outweighs_a_useless_one(tmp_path: Path) -> None:
    """One view segments the organ; the other confidently predicts the opposite."""
    image = intensities(SHAPE)
    cases = {"a": write_case(tmp_path, "a", image, image > 0.25)}
    perfect, opposite = Pointwise([8.0], [-2.06]), Pointwise([-16.0], [4.0])
    found = fit([view(opposite, "axial", 9), view(perfect, "coronal", 9)], cases)
    assert found.dice == 1.0
    assert found.dice_equal < 0.5
    # Just inside the organ, at 17/64, the two predict 0.516 and 0.438: the perfect view needs more than 0.79. Among
    # equally good weights, those nearest to equal ones are chosen.
    assert 0.79 < found.weights[1] < 0.9
    only = fit([view(Pointwise([0.0], [30.0]), "axial", 9), view(perfect, "coronal", 9)], cases)
    assert only.weights == (0.0, 1.0)  # a view that predicts the organ everywhere does harm at any weight
    assert only.dice == 1.0


def test_identical_views_get_equal_weights(tmp_path: Path) -> None:
    image = intensities(SHAPE)
    cases = {"a": write_case(tmp_path, "a", image, image > 0.1)}
    found = fit([view(Pointwise([8.0], [0.0]), axis, 9) for axis in ("axial", "coronal", "sagittal")], cases)
    assert found.weights == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=1e-6)
    assert found.dice == found.dice_equal


@pytest.mark.parametrize("n_views", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_fitted_weights_are_as_good_as_a_fine_grid_search(tmp_path: Path, n_views: int, seed: int) -> None:
    """Two cases with noise in the reference; each network has its own slope and offset."""
    random = np.random.default_rng(seed)
    coefficients = [(random.uniform(-6, 12), random.uniform(-3, 3)) for _ in range(n_views)]
    cases, stacks = {}, []
    for name in ("a", "b"):
        image = intensities(SHAPE, int(random.integers(1000)))
        organ = (image + random.normal(0, 0.4, SHAPE)) > 0.3
        cases[name] = write_case(tmp_path, name, image, organ)
        stacks.append((np.stack([expit(slope * image + offset) for slope, offset in coefficients]), organ))
    axes = ("axial", "coronal", "sagittal")
    views = [
        view(Pointwise([slope], [offset]), axis, 9) for (slope, offset), axis in zip(coefficients, axes, strict=False)
    ]
    found = fit(views, cases)
    assert found.dice == pytest.approx(mean_dice(found.weights, stacks), abs=1e-3)
    assert found.dice_equal == pytest.approx(mean_dice([1 / n_views] * n_views, stacks), abs=1e-3)
    assert found.dice >= found.dice_equal
    assert sum(found.weights) == pytest.approx(1, abs=1e-5)
    steps = [combination for combination in product(range(21), repeat=n_views) if sum(combination) == 20]
    best = max(mean_dice(np.array(combination) / 20, stacks) for combination in steps)
    assert found.dice >= best - 1e-6


def test_cases_without_any_class_are_left_out(tmp_path: Path) -> None:
    image = intensities(SHAPE)
    good, empty = write_case(tmp_path, "a", image, image > 0), write_case(tmp_path, "b", -np.abs(image), image > 2)
    views = [view(Pointwise([20.0], [-0.1]), axis, 9) for axis in ("axial", "coronal")]
    assert fit(views, {"a": good, "b": empty}).dice == fit(views, {"a": good}).dice == 1.0
    with pytest.raises(InputError, match="no case contains any class"):
        fit(views, {"b": empty})


def test_ignored_voxels_do_not_count(tmp_path: Path) -> None:
    """Two of five slices have a label that contradicts the others; ignored, the weights are those of the others."""
    image = intensities(SHAPE)
    organ = (image > 0.25).astype(np.uint8)
    organ[:, :, 3:] = image[:, :, 3:] <= 0.25
    partly = organ.copy()
    partly[:, :, 3:] = 255
    opposite, perfect = Pointwise([-16.0], [4.0]), Pointwise([8.0], [-2.06])
    views = [view(opposite, "axial", 9), view(perfect, "coronal", 9)]
    ignoring = [ignoring_value(each, 255) for each in views]
    found = fit(ignoring, {"a": write_case(tmp_path, "a", image, partly)})
    assert found.dice == 1.0
    assert 0.79 < found.weights[1] < 0.9  # as without these slices
    kept, probabilities = organ[:, :, :3] > 0, [expit(-16 * image + 4), expit(8 * image - 2.06)]
    assert found.dice_equal == pytest.approx(mean_dice([0.5, 0.5], [(np.stack(probabilities)[..., :3], kept)]))
    assert fit(views, {"a": write_case(tmp_path, "b", image, organ)}).dice < 0.9
    other = ignoring_value(views[0], -1)
    with pytest.raises(InputError, match=r"ignore different label values, -1 \(axial\), 255 \(coronal\)"):
        fit([other, ignoring[1]], {})


def test_a_class_that_a_case_does_not_label_does_not_count(tmp_path: Path) -> None:
    """In b the organ is not labelled; counted as background, it would favour the view that finds nothing there."""
    image = intensities(SHAPE)
    cases = {
        "a": write_case(tmp_path, "a", image, image > 0.25),
        "b": write_case(tmp_path, "b", image, np.zeros(SHAPE)),
    }
    views = [view(Pointwise([-16.0], [4.0]), "axial", 9), view(Pointwise([8.0], [-2.06]), "coronal", 9)]
    (name,) = views[0].model.classes.names
    found = fit_weights(views, cases, 4, lambda *_: None, labelled={"a": (name,), "b": ()})
    assert found == fit(views, {"a": cases["a"]})
    assert fit(views, cases).dice < found.dice
    with pytest.raises(InputError, match=f"the reference contains {name}, which is not said to be labelled in 'a'"):
        fit_weights(views, cases, 4, lambda *_: None, labelled={"a": (), "b": ()})
    with pytest.raises(InputError, match="nothing says which classes are labelled in 'b'"):
        fit_weights(views, cases, 4, lambda *_: None, labelled={"a": (name,)})


def ignoring_value(each: View, value: int) -> View:
    """The view, as if its run had been trained with this ignore value."""
    preprocessing = replace(each.model.preprocessing, ignore_value=value)
    return replace(each, model=replace(each.model, spec=replace(each.model.spec, preprocessing=preprocessing)))


def test_fitting_weights_for_a_single_view_is_refused(tmp_path: Path) -> None:
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
