"""Left and right classes: which of them are swapped when an image is mirrored."""

import pytest

from spleen.errors import InputError
from spleen.imaging.classes import swapped_classes


@pytest.mark.parametrize(
    ("names", "swapped"),
    [
        (("left_kidney", "liver", "right_kidney"), (0, 3, 2, 1)),
        (("kidney_l", "kidney_r"), (0, 2, 1)),
        (("left", "right"), (0, 2, 1)),
        (("L", "R"), (0, 2, 1)),
        (("R kidney", "L kidney", "R lung", "L lung"), (0, 2, 1, 4, 3)),
        (("Left-Hippocampus", "Right-Hippocampus"), (0, 2, 1)),
        (("KidneyLeft", "KidneyRight"), (0, 2, 1)),
        (("LKidney", "RKidney"), (0, 2, 1)),
        (("kidneyL", "kidneyR"), (0, 2, 1)),
        (("lung_upper_lobe_left", "lung_upper_lobe_right"), (0, 2, 1)),
        (("femur_left_head", "femur_right_head"), (0, 2, 1)),
        (("ctx-lh-cuneus", "ctx-rh-cuneus"), (0, 2, 1)),
        (("Lt Parotid", "Rt Parotid"), (0, 2, 1)),
        (("leftkidney", "rightkidney"), (0, 2, 1)),
        (("left_kidney", "kidney_r"), (0, 2, 1)),
        (("spleen", "bright", "cleft", "left_and_right_lung"), ()),
        (("vertebra_L1", "L5", "l_5", "lr", "gallbladder"), ()),
    ],
)
def test_left_and_right_classes_are_swapped(names: tuple[str, ...], swapped: tuple[int, ...]) -> None:
    assert swapped_classes(names, ["left_right"]) == swapped


@pytest.mark.parametrize(
    ("names", "unpaired", "opposite"),
    [
        (("left_atrium",), "left_atrium", "right"),
        (("kidney_l", "liver"), "kidney_l", "right"),
        (("left_kidney", "right_lung"), "left_kidney", "right"),
        (("R",), "R", "left"),
        (("left_kidney", "kidney_left", "right_kidney"), "right_kidney", "left"),
    ],
)
def test_a_left_or_right_class_without_exactly_one_counterpart_is_rejected(
    names: tuple[str, ...], unpaired: str, opposite: str
) -> None:
    with pytest.raises(InputError, match=rf"'{unpaired}', which has a side, .* not exactly one .* the {opposite}"):
        swapped_classes(names, ["left_right"])


@pytest.mark.parametrize(
    ("name", "flip"),
    [
        ("Anterior", "anterior_posterior"),
        ("hippocampus_posterior", "anterior_posterior"),
        ("lung_upper_lobe", "superior_inferior"),
    ],
)
def test_flips_that_would_mislabel_a_class_are_rejected(name: str, flip: str) -> None:
    with pytest.raises(InputError, match=rf"{flip} mirrors the class '{name}' to where it would be wrong"):
        swapped_classes(["liver", name], [flip])
    others = {"left_right", "anterior_posterior", "superior_inferior"} - {flip}
    assert swapped_classes(["liver", name], others) == ()


@pytest.mark.parametrize("name", ["liver", "kidneys", "cleft", "bright", "gallbladder", "upright"])
def test_a_side_inside_another_word_is_ignored(name: str) -> None:
    assert swapped_classes([name], ["left_right", "anterior_posterior", "superior_inferior"]) == ()
