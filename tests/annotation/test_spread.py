"""Spreading slices over a scan; expected positions are worked by hand."""

import itertools

import numpy as np
import pytest

from spleen.annotation.spread import body_span, organ_span, spread_slices


def radius(chosen: set[int], first: int, last: int) -> int:
    """Largest distance from a slice of the span to a chosen one."""
    return max(min(abs(index - other) for other in chosen) for index in range(first, last + 1))


@pytest.mark.parametrize(
    ("n_slices", "span", "taken", "expected"),
    [
        (2, (0, 7), (), (2, 6)),  # halves 0–3 and 4–7
        (1, (10, 14), (), (12,)),
        (1, (0, 10), (0, 10), (5,)),  # the middle of the gap
        (2, (0, 9), (0, 9), (3, 6)),
        (1, (0, 12), (0, 2, 12), (7,)),  # the larger gap, not the smaller one
        (2, (0, 10), (0,), (4, 8)),  # 0 to 10 with an open end: steps of 10.5 / 2.5 = 4.2
        (2, (0, 10), (10,), (2, 6)),  # the mirror image
        (9, (0, 3), (1,), (0, 2, 3)),  # no more than there are
    ],
)
def test_slices_are_spread(
    n_slices: int, span: tuple[int, int], taken: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert spread_slices(n_slices, span, taken) == expected


@pytest.mark.parametrize("taken", [(), (0,), (4,), (3, 11), (12,)])
@pytest.mark.parametrize("n_slices", [1, 2, 3])
def test_no_other_choice_leaves_a_smaller_largest_distance(n_slices: int, taken: tuple[int, ...]) -> None:
    chosen = spread_slices(n_slices, (0, 12), taken)
    assert len(set(chosen) - set(taken)) == n_slices
    others = itertools.combinations([index for index in range(13) if index not in taken], n_slices)
    assert radius({*chosen, *taken}, 0, 12) == min(radius({*other, *taken}, 0, 12) for other in others)


def test_the_organ_ends_before_the_nearest_slice_without_it() -> None:
    assert organ_span(50, (5, 10, 20, 30, 40), (20, 30)) == (10, 40)
    assert organ_span(50, (20, 30), (20, 30)) == (0, 49)
    assert organ_span(50, (5, 40), ()) is None


def test_the_body_ends_where_a_scan_is_air() -> None:
    """A body of 6 × 4 voxels on slices 3 to 7 of the second axis; a table of one voxel does not count."""
    image = np.full((8, 12, 5), -1000.0, np.float32)
    image[1:7, 3:8, :4] = 40.0
    image[3, 10, 2] = 200.0
    assert body_span(image, "coronal") == (3, 7)
    assert body_span(np.zeros((2, 3, 4), np.float32), "axial") == (0, 3)
