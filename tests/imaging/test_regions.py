"""Overlapping classes: their label maps, and how probabilities become masks."""

import numpy as np
import pytest
import torch

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap, in_class, parse_label_values
from spleen.imaging.labels import to_class_indices
from spleen.imaging.probabilities import most_probable_class, probabilities, with_regions_on_top

TUMOUR = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
KIDNEY = {"kidney and masses": [1, 2, 3], "masses": [2, 3], "tumour": [2]}
"""As KiTS23 has them, with the order 1, 3, 2."""


@pytest.mark.parametrize(("classes", "order"), [(TUMOUR, [1, 2, 3]), (KIDNEY, [1, 3, 2])])
def test_a_label_map_knows_the_regions_of_each_voxel(classes: dict[str, list[int]], order: list[int]) -> None:
    label = np.array([0, 1, 2, 3, 7]).reshape(5, 1, 1)
    parsed = parse_label_values(classes, "organ", order)
    indices = to_class_indices(label, parsed)
    assert parsed.regions is not None
    for number, values in enumerate(classes.values(), start=1):
        np.testing.assert_array_equal(in_class(indices, number, parsed.regions), np.isin(label, values))
    assert [values[0] for values in parsed.values] == order
    assert parsed.n_indices == 3


def test_a_value_between_regions_has_an_index_of_its_own() -> None:
    """Value 2 is of both, 1 and 3 of one each, and a mask has 2 or 3."""
    parsed = parse_label_values({"a": [1, 2], "b": [2, 3]}, "organ", [2, 3])
    label = np.array([0, 1, 2, 3]).reshape(4, 1, 1)
    indices = to_class_indices(label, parsed)
    assert indices.ravel().tolist() == [0, 3, 1, 2]
    assert in_class(indices, 1, parsed.regions).ravel().tolist() == [False, True, True, False]
    assert in_class(indices, 2, parsed.regions).ravel().tolist() == [False, False, True, True]
    on_top = with_regions_on_top(torch.tensor([[[0, 3, 1, 2, 255]]]), parsed.regions)
    assert on_top.flatten().tolist() == [0, 1, 2, 2, 255]


def painted(foreground: np.ndarray) -> np.ndarray:
    """nnU-Net's documented rule: the regions are placed into the mask one after the other, each over the others."""
    mask = np.zeros(foreground.shape[1:], np.uint8)
    for number, probability in enumerate(foreground, start=1):
        mask[probability > 0.5] = number
    return mask


@pytest.mark.parametrize("shape", [(9,), (4, 5, 3)])
def test_masks_are_painted_in_the_order_of_the_regions(shape: tuple[int, ...]) -> None:
    foreground = np.random.default_rng(3).random((2, 3, *shape)).astype(np.float32)
    foreground[0, :, 0] = 0.5
    decision = most_probable_class(torch.from_numpy(foreground), parse_label_values(TUMOUR, "", [1, 2, 3]).regions)
    np.testing.assert_array_equal(decision, np.stack([painted(of_sample) for of_sample in foreground]))


def test_each_region_has_the_sigmoid_of_its_logit_less_that_of_the_background() -> None:
    regions = parse_label_values({"whole": [1, 2], "core": [2]}, "", [1, 2]).regions
    logits = torch.tensor([0.5, 1.5, -0.5]).view(1, 3, 1, 1)
    whole, core = 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(1.0))
    np.testing.assert_allclose(probabilities(logits, regions).flatten(), [1 - whole, whole, core], rtol=1e-6)


@pytest.mark.parametrize(
    ("classes", "order", "expected"),
    [
        (TUMOUR, None, r"share the label values 2, 3, so they overlap.*data\.regions_class_order=\[1,2,3\]"),
        (TUMOUR, [1, 2], r"must be a list of 3 different label values, one for each of whole, core, enhancing"),
        (TUMOUR, [1, 2, 2], "must be a list of 3 different"),
        (TUMOUR, "123", "must be a list of 3 different"),
        (TUMOUR, [2, 1, 3], "gives 'core' the value 1, which is not one of its own"),
        ({"a": [1, 2], "b": [3]}, [1, 3], "share none; leave it out"),
        ({"a": [1, 2], "b": [2, 1]}, [1, 2], "without duplicates"),
    ],
)
def test_wrong_orders_are_errors(classes: dict[str, list[int]], order: object, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        parse_label_values(classes, "organ", order)


def test_classes_without_shared_values_are_no_regions() -> None:
    assert ClassMap(("a", "b"), ((1, 4), (2,))).regions is None
    assert ClassMap(("a",), ((),)).regions is None
