"""Postprocessing of label maps, checked against hand-drawn masks and SimpleITK."""

import itertools

import numpy as np
import pytest
import SimpleITK

from spleen.errors import InputError
from spleen.imaging.postprocessing import PostprocessSettings, components, postprocess

SHAPE = (5, 7, 3)
VOXEL_MM3 = 0.8 * 0.8 * 5.0  # 3.2
LARGEST = PostprocessSettings(keep_largest=(1,))
FILL = PostprocessSettings(fill_holes=True)


def picture(*rows: str) -> np.ndarray:
    """A volume of one slice along i, drawn as text: rows run along j, columns along k, "." is background."""
    return np.array([[0 if voxel == "." else int(voxel) for voxel in row] for row in rows], dtype=np.uint8)[None]


def random_mask(seed: int, density: float, shape=(11, 14, 9)) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < density


def walled(picture_2d: np.ndarray, wall: int) -> np.ndarray:
    """A one-slice picture between two slices filled with `wall`."""
    lid = np.full_like(picture_2d, wall)
    return np.concatenate([lid, picture_2d, lid])


def by_simpleitk(mask: np.ndarray) -> list[np.ndarray]:
    """The components (26 neighbours), the largest first."""
    found = SimpleITK.RelabelComponent(
        SimpleITK.ConnectedComponent(SimpleITK.GetImageFromArray(mask.astype(np.uint8)), True)
    )
    labels = SimpleITK.GetArrayFromImage(found)
    return [labels == number for number in range(1, labels.max() + 1)]


# Components ---------------------------------------------------------------------------------------------------------


def test_voxels_that_share_a_corner_are_one_component():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 1, 1] = True
    mask[4, 6, 2] = True
    assert components(mask) == [3, 1]


def test_an_empty_mask_has_no_components():
    assert components(np.zeros(SHAPE, dtype=bool)) == []


@pytest.mark.parametrize("density", [0.03, 0.08, 0.2])
def test_components_match_simpleitk(density):
    for seed in range(5):
        mask = random_mask(seed, density)
        assert components(mask) == [int(part.sum()) for part in by_simpleitk(mask)]


def test_the_result_does_not_depend_on_the_memory_layout():
    mask = random_mask(0, 0.08)
    expected = components(mask)
    labels = mask.astype(np.uint8)
    cleaned = postprocess(labels, VOXEL_MM3, PostprocessSettings((1,), True, 4.0))
    for order in itertools.permutations(range(3)):
        assert components(mask.transpose(order)) == expected
        transposed = postprocess(labels.transpose(order), VOXEL_MM3, PostprocessSettings((1,), True, 4.0))
        np.testing.assert_array_equal(transposed, cleaned.transpose(order))
    backwards = mask[::-1, :, ::-1]
    assert components(backwards) == expected


# Keep the largest ---------------------------------------------------------------------------------------------------


def test_only_the_largest_component_of_the_selected_class_is_kept():
    mask = picture(
        "11..2",
        "11...",
        "....2",
        "2..11",
    )
    expected = picture(
        "11..2",
        "11...",
        "....2",
        "2....",
    )
    np.testing.assert_array_equal(postprocess(mask, VOXEL_MM3, LARGEST), expected)


def test_each_selected_class_keeps_its_own_largest_component():
    mask = picture("11.22.1", "......2")
    expected = picture("11.22..", ".......")
    np.testing.assert_array_equal(postprocess(mask, VOXEL_MM3, PostprocessSettings((1, 2))), expected)


def test_the_largest_component_matches_simpleitk():
    for seed in range(10):
        mask = random_mask(seed, 0.1)
        first, second, *_ = by_simpleitk(mask)
        assert first.sum() > second.sum(), "this seed has a tie"
        np.testing.assert_array_equal(postprocess(mask.astype(np.uint8), VOXEL_MM3, LARGEST), first)


def test_of_equally_large_components_the_first_in_i_j_k_order_is_kept():
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[1, 5, 2] = mask[3, 0, 0] = mask[1, 1, 2] = 1
    expected = np.zeros(SHAPE, dtype=np.uint8)
    expected[1, 1, 2] = 1
    for stored in (mask, np.asfortranarray(mask)):
        np.testing.assert_array_equal(postprocess(stored, VOXEL_MM3, LARGEST), expected)


# Minimum volume -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("min_volume_mm3", "kept_sizes"),
    [(0.0, [5, 3, 1]), (3.2, [5, 3, 1]), (3.3, [5, 3]), (9.6, [5, 3]), (9.7, [5]), (16.0, [5]), (16.1, [])],
)
def test_components_below_the_minimum_volume_are_removed_and_those_equal_to_it_are_kept(min_volume_mm3, kept_sizes):
    """Components of 5, 3 and 1 voxels are 16.0, 9.6 and 3.2 mm³."""
    mask = picture("11111.111.1")
    cleaned = postprocess(mask, VOXEL_MM3, PostprocessSettings(min_volume_mm3=min_volume_mm3))
    assert components(cleaned == 1) == kept_sizes


def test_single_precision_spacing_does_not_remove_a_component_of_exactly_the_minimum_volume():
    below = float(np.float32(0.7) ** 2 * np.float32(4.1))  # 2.00899997…
    assert below < 0.7 * 0.7 * 4.1
    mask = picture("111")
    cleaned = postprocess(mask, below, PostprocessSettings(min_volume_mm3=3 * 0.7 * 0.7 * 4.1))
    np.testing.assert_array_equal(cleaned, mask)


def test_the_minimum_volume_applies_to_every_class_and_matches_simpleitk():
    first, second = random_mask(1, 0.06), random_mask(2, 0.06)
    mask = np.where(first, 1, np.where(second, 2, 0)).astype(np.uint8)
    expected = np.zeros_like(mask)
    for number in (1, 2):
        for part in by_simpleitk(mask == number):
            if part.sum() >= 3:
                expected[part] = number
    assert 0 < np.count_nonzero(expected) < np.count_nonzero(mask)
    np.testing.assert_array_equal(postprocess(mask, VOXEL_MM3, PostprocessSettings(min_volume_mm3=9.6)), expected)


# Holes --------------------------------------------------------------------------------------------------------------


def test_an_enclosed_hole_is_filled_but_not_one_open_along_the_third_axis():
    mask = picture(
        ".....",
        ".111.",
        ".1.1.",
        ".111.",
    )
    filled = picture(
        ".....",
        ".111.",
        ".111.",
        ".111.",
    )
    closed = postprocess(walled(mask, 1), VOXEL_MM3, FILL)
    np.testing.assert_array_equal(closed[1:2], filled)
    opened = walled(mask, 1)
    opened[0, 2, 2] = 0
    np.testing.assert_array_equal(postprocess(opened, VOXEL_MM3, FILL), opened)


def test_a_hole_open_to_the_border_of_the_volume_is_not_filled():
    mask = walled(
        picture(
            "1.1",
            "111",
        ),
        1,
    )
    np.testing.assert_array_equal(postprocess(mask, VOXEL_MM3, FILL), mask)


def test_a_wall_of_voxels_touching_at_their_edges_encloses_a_hole():
    mask = walled(
        picture(
            ".....",
            "..1..",
            ".1.1.",
            "..1..",
            ".....",
        ),
        0,
    )
    mask[0, 2, 2] = mask[2, 2, 2] = 1
    expected = mask.copy()
    expected[1, 2, 2] = 1
    np.testing.assert_array_equal(postprocess(mask, VOXEL_MM3, FILL), expected)


@pytest.mark.parametrize("density", [0.4, 0.6, 0.8])
def test_hole_filling_matches_simpleitk(density):
    n_filled = 0
    for seed in range(5):
        mask = random_mask(seed, density).astype(np.uint8)
        expected = SimpleITK.GetArrayFromImage(
            SimpleITK.BinaryFillhole(SimpleITK.GetImageFromArray(mask), fullyConnected=False)
        )
        np.testing.assert_array_equal(postprocess(mask, VOXEL_MM3, FILL), expected)
        n_filled += int(expected.sum()) - int(mask.sum())
    assert n_filled > 0


def test_another_class_inside_a_hole_is_kept_and_the_background_around_it_is_filled():
    mask = walled(
        picture(
            "1111111",
            "1.....1",
            "1..2..1",
            "1.....1",
            "1111111",
        ),
        1,
    )
    filled = picture(
        "1111111",
        "1111111",
        "1112111",
        "1111111",
        "1111111",
    )
    np.testing.assert_array_equal(postprocess(mask, VOXEL_MM3, FILL)[1:2], filled)


@pytest.mark.parametrize(("outer", "inner"), [(1, 2), (2, 1)])
def test_a_hole_is_filled_with_the_innermost_enclosing_class(outer, inner):
    ring = np.zeros((7, 7, 7), dtype=np.uint8)
    ring[:] = outer
    ring[1:6, 1:6, 1:6] = 0
    ring[2:5, 2:5, 2:5] = inner
    ring[3, 3, 3] = 0
    expected = np.full((7, 7, 7), outer, dtype=np.uint8)
    expected[2:5, 2:5, 2:5] = inner
    np.testing.assert_array_equal(postprocess(ring, VOXEL_MM3, FILL), expected)


def test_a_hole_enclosed_only_by_two_classes_together_is_not_filled():
    mask = walled(
        picture(
            "1122",
            "1..2",
            "1122",
        ),
        1,
    )
    mask[0, 1, 2] = 2
    mask[0, :, 3] = mask[2, :, 3] = 2
    np.testing.assert_array_equal(postprocess(mask, VOXEL_MM3, FILL), mask)


# Combined steps -----------------------------------------------------------------------------------------------------


def test_small_components_are_removed_first_then_all_but_the_largest_then_holes_are_filled():
    mask = walled(
        picture(
            "11111.22.",
            "1.2.1.222",
            "11111....",
        ),
        0,
    )
    mask[0, :, :5] = mask[2, :, :5] = 1  # lid and floor over the first box
    # The single 2 (3.2 mm³) is removed and its voxel filled with 1 as part of the hole; the other 2 (16 mm³) is kept.
    expected = mask.copy()
    expected[1, 1, :5] = 1
    cleaned = postprocess(mask, VOXEL_MM3, PostprocessSettings((1,), True, 10.0))
    np.testing.assert_array_equal(cleaned, expected)


def test_the_defaults_change_nothing_and_the_input_is_never_modified():
    mask = (random_mask(4, 0.3) * np.uint8(2)).astype(np.uint8)
    before = mask.copy()
    untouched = postprocess(mask, VOXEL_MM3, PostprocessSettings())
    np.testing.assert_array_equal(untouched, before)
    assert not np.shares_memory(untouched, mask)
    mask.flags.writeable = False
    cleaned = postprocess(mask, VOXEL_MM3, PostprocessSettings((2,), True, 10.0))
    np.testing.assert_array_equal(mask, before)
    assert cleaned.dtype == np.uint8
    assert (cleaned != before).any()


def test_an_empty_map_stays_empty():
    empty = np.zeros(SHAPE, dtype=np.uint8)
    np.testing.assert_array_equal(postprocess(empty, VOXEL_MM3, PostprocessSettings((1, 2), True, 100.0)), empty)


@pytest.mark.parametrize("volume", [-1.0, float("nan"), float("inf")])
def test_an_invalid_minimum_volume_is_rejected(volume):
    with pytest.raises(InputError, match=r"at least 0 mm³ and finite; got"):
        PostprocessSettings(min_volume_mm3=volume)


def test_the_background_is_rejected_for_keep_largest():
    with pytest.raises(InputError, match=r"start at 1; got \[0, 2\]"):
        PostprocessSettings(keep_largest=(0, 2))


def test_more_components_than_uint16_can_number_are_counted():
    """Every second voxel along each axis: 41³ components of one voxel, and 68,921 is more than 2¹⁶."""
    mask = np.zeros((82, 82, 82), bool)
    mask[::2, ::2, ::2] = True
    assert components(mask) == [1] * 41**3
    mask[:2, :2, :2] = True
    cleaned = postprocess(mask.astype(np.uint8), 1.0, PostprocessSettings(keep_largest=(1,)))
    assert np.count_nonzero(cleaned) == np.count_nonzero(mask[:3, :3, :3])
