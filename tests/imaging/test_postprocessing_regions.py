"""Postprocessing of overlapping classes: each in its own mask, checked against hand-drawn masks and SimpleITK."""

import numpy as np
import pytest
import SimpleITK

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap, in_class, parse_label_values
from spleen.imaging.postprocessing import PostprocessSettings, postprocess
from spleen.inference.settings import PredictSettings, postprocess_settings

VOXEL_MM3 = 3.2
TUMOUR = parse_label_values({"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}, "", [1, 2, 3])
LIVER = parse_label_values({"liver": [1, 2, 3], "tumour": [2], "cyst": [3]}, "", [1, 2, 3])
INNER_FIRST = parse_label_values({"core": [2], "whole": [1, 2]}, "", [2, 1])
IN_PART = parse_label_values({"a": [1, 3], "b": [2, 3]}, "", [1, 2])
BOTH = parse_label_values({"a": [1, 3], "b": [2, 3], "both": [3]}, "", [1, 2, 3])


def picture(*rows: str) -> np.ndarray:
    """A volume of one slice along i, drawn as text: rows run along j, columns along k, "." is background."""
    return np.array([[0 if voxel == "." else int(voxel) for voxel in row] for row in rows], dtype=np.uint8)[None]


def cleaned(mask: np.ndarray, classes: ClassMap, **settings: object) -> np.ndarray:
    return postprocess(mask, VOXEL_MM3, postprocess_settings(classes, PredictSettings(**settings)))


def test_a_component_of_the_whole_goes_with_what_is_inside() -> None:
    mask = picture("1123..2.", "1111..11")
    np.testing.assert_array_equal(cleaned(mask, TUMOUR, keep_largest=("whole",)), picture("1123....", "1111...."))


def test_what_is_dropped_from_an_inner_region_stays_in_the_outer_one() -> None:
    mask = picture("12212.2", "1221111")
    np.testing.assert_array_equal(cleaned(mask, TUMOUR, keep_largest=("core",)), picture("12211.1", "1221111"))


def test_a_region_is_one_component_even_where_another_is_on_top() -> None:
    """The core parts the whole in two, as far as their values go."""
    mask = picture("1121", "1131")
    np.testing.assert_array_equal(cleaned(mask, TUMOUR, keep_largest=("whole",)), mask)


def test_the_largest_inner_component_is_that_of_what_the_outer_keeps() -> None:
    """The largest core lies in a part of the tumour that goes, so it is no candidate."""
    mask = picture("11111.222", "12112.222", "11111....")
    expected = picture("11111....", "12111....", "11111....")
    np.testing.assert_array_equal(cleaned(mask, TUMOUR, keep_largest=("all",)), expected)


@pytest.mark.parametrize(("kept", "expected"), [("core", "2222.11"), ("whole", "1221...")])
def test_the_order_of_the_classes_does_not_decide_which_is_the_outer_one(kept: str, expected: str) -> None:
    """The core has number 1 here, the whole 2."""
    found = cleaned(picture("1221.11"), INNER_FIRST, keep_largest=(kept,))
    np.testing.assert_array_equal(found, picture(expected))


def test_siblings_in_an_outer_region_are_each_by_themselves() -> None:
    mask = picture("22132", "11131", "31111")
    np.testing.assert_array_equal(cleaned(mask, LIVER, keep_largest=("all",)), picture("22131", "11131", "11111"))


def test_regions_that_overlap_in_part_are_as_in_their_mask() -> None:
    """A voxel of both has the value of the later one alone."""
    mask = picture("1122.1", "....22")
    np.testing.assert_array_equal(cleaned(mask, IN_PART, keep_largest=("a",)), picture("1122..", "....22"))


def test_small_components_are_those_of_each_region() -> None:
    """6.4 mm³ are two voxels: the single voxel of the core becomes whole, and one of the whole background."""
    mask = picture("121.2.1", "......1")
    np.testing.assert_array_equal(cleaned(mask, TUMOUR, min_volume_mm3=6.4), picture("111...1", "......1"))


def test_the_largest_components_are_those_of_simpleitk() -> None:
    rng = np.random.default_rng(5)
    shape = (11, 14, 9)
    for _ in range(5):
        mask = (rng.random(shape) < 0.25) * rng.integers(1, 4, shape, np.uint8)
        found = cleaned(mask, TUMOUR, keep_largest=("all",))
        around = np.ones(shape, bool)
        for number in (1, 2, 3):  # each the largest component of its region, within that of the one around it
            image = SimpleITK.GetImageFromArray(((mask >= number) & around).astype(np.uint8))
            by_size = SimpleITK.RelabelComponent(SimpleITK.ConnectedComponent(image, True))
            labels = SimpleITK.GetArrayFromImage(by_size)
            assert (labels == 1).sum() > (labels == 2).sum(), "this seed has a tie"
            around = labels == 1
            np.testing.assert_array_equal(in_class(found, number, TUMOUR.regions), around)


def test_a_hole_becomes_the_innermost_region_that_encloses_it() -> None:
    """Other classes inside stay: the core that the enhancing rim encloses is no hole."""
    flat = picture(
        "1111111111",
        "1.13333311",
        "1113222311",
        "11132.2311",
        "1113222311",
        "1113333311",
        "1111111111",
    )
    lid = np.full_like(flat, 3)
    expected = flat.copy()
    expected[0, 1, 1], expected[0, 3, 5] = 1, 2
    # Between the lids of 3, all of the slice is enclosed at its sides by 1 at most, so 3 has no hole beyond its rim.
    found = cleaned(np.concatenate([lid, flat, lid]), TUMOUR, fill_holes=True)
    np.testing.assert_array_equal(found[1:2], expected)


def test_the_voxels_of_a_sibling_are_no_hole() -> None:
    wall = picture("222", "222", "222")
    middle = picture("222", "232", "222")
    mask = np.concatenate([wall, middle, wall])
    np.testing.assert_array_equal(cleaned(mask, LIVER, fill_holes=True), mask)


def test_cleaning_nothing_changes_nothing() -> None:
    mask = picture("12.3", "2..1")
    np.testing.assert_array_equal(postprocess(mask, VOXEL_MM3, PostprocessSettings(regions=TUMOUR.regions)), mask)
    empty = np.zeros((2, 3, 4), np.uint8)
    settings = PredictSettings(keep_largest=("all",), fill_holes=True, min_volume_mm3=9.0)
    np.testing.assert_array_equal(postprocess(empty, 1.0, postprocess_settings(TUMOUR, settings)), empty)


def test_parts_of_an_intersection_cannot_be_taken_away() -> None:
    """A voxel that leaves "both" would be of a and b, and no value of a mask says so."""
    for settings in ({"keep_largest": ("both",)}, {"min_volume_mm3": 1.0}):
        with pytest.raises(InputError, match=r"taken out of 'both' would be of a and b.*no value of a mask"):
            cleaned(picture("13"), BOTH, **settings)
    # Those of a may go: what leaves it leaves both, and stays in b.
    np.testing.assert_array_equal(cleaned(picture("11.3322"), BOTH, keep_largest=("a",)), picture("11.2222"))
