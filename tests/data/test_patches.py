"""Patches for 3D networks: which slices they have, with which labels."""

from dataclasses import replace

import numpy as np
import pytest

from spleen.data.loading.batches import BalancedBatches, CaseSlices
from spleen.data.loading.patches import PatchBatches, Run, ScoredVolumes, TrainingPatches, runs
from spleen.data.store.entry import StoredCase
from spleen.errors import InputError
from spleen.imaging.labels import IGNORED
from tests.data.test_batches import _stored


@pytest.fixture
def case(tmp_path) -> StoredCase:
    """12 axial slices of 7 × 5 pixels."""
    return _stored(tmp_path, (5, 7, 12))


def part(case: StoredCase, *indices: int) -> CaseSlices:
    return CaseSlices(case, np.array(indices))


def drawn(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs)


def test_a_run_ends_where_another_split_begins(case: StoredCase) -> None:
    assert runs(part(case, 0, 1, 2, 6, 7, 11)) == [Run(0, 3), Run(6, 8), Run(11, 12)]


def test_unlabelled_slices_between_and_beside_labelled_ones_belong_to_their_run(case: StoredCase) -> None:
    partly = replace(case, ignored_slices=(1, 2, 4, 9, 10))
    # 3 and 5 are labelled and of this split; 0, 6, 7, 8, 11 are of another one.
    assert runs(part(partly, 3, 5)) == [Run(1, 6)]


def test_a_patch_has_consecutive_slices_with_the_drawn_one_in_its_place(case: StoredCase) -> None:
    patches = TrainingPatches([part(case, *range(12))], depth=4)
    batch = patches[drawn((5, 0), (5, 3), (0, 2), (11, 1))]
    first = [5, 2, 0, 8]  # the last two would begin before the first slice, or end after the last
    assert batch.image.shape == (4, 4, 7, 5)
    for row, start in enumerate(first):
        np.testing.assert_array_equal(batch.image[row], case.images[start : start + 4][:, 0])
        np.testing.assert_array_equal(batch.label[row], case.labels[start : start + 4])
    assert batch.origin.tolist() == [[0, 5], [0, 5], [0, 0], [0, 11]]
    assert (batch.n_slices, batch.n_steps) == (16, 1)


def test_a_patch_stays_within_its_run(case: StoredCase) -> None:
    batch = TrainingPatches([part(case, 0, 1, 2, 3, 8, 9, 10, 11)], depth=3)[drawn((3, 0), (4, 2))]
    np.testing.assert_array_equal(batch.image[0], case.images[1:4][:, 0])
    np.testing.assert_array_equal(batch.image[1], case.images[8:11][:, 0])


def test_beyond_a_run_that_is_too_short_its_last_slice_is_repeated_without_a_label(case: StoredCase) -> None:
    batch = TrainingPatches([part(case, 4, 5, 9)], depth=4)[drawn((1, 3))]
    np.testing.assert_array_equal(batch.image[0], case.images[np.array([4, 5, 5, 5])][:, 0])
    np.testing.assert_array_equal(batch.label[0, :2], case.labels[4:6])
    assert (batch.label[0, 2:] == IGNORED).all()


def test_channels_of_one_slice_come_before_those_of_the_next(tmp_path) -> None:
    case = _stored(tmp_path, (5, 7, 12))
    images = np.repeat(case.images[:], 2, axis=1)
    images[:, 1] += 10
    np.save(tmp_path / "two.npy", images)
    two = replace(case, images=type(case.images).at(tmp_path / "two.npy"))
    batch = TrainingPatches([part(two, *range(12))], depth=2)[drawn((3, 0))]
    np.testing.assert_array_equal(batch.image[0], images[3:5].reshape(4, 7, 5))


def test_smaller_slices_are_padded_with_their_smallest_intensity_and_background(tmp_path) -> None:
    small, large = _stored(tmp_path, (5, 7, 12), img_size="native"), _stored(tmp_path, (9, 8, 12), img_size="native")
    batch = TrainingPatches([part(small, *range(12)), part(large, *range(12))], depth=2)[drawn((0, 0), (12, 0))]
    assert batch.image.shape == (2, 2, 8, 9)
    assert (batch.image[0, :, 7:] == float(small.images[0:2].min())).all()
    assert (batch.label[0, :, :, 5:] == 0).all()
    np.testing.assert_array_equal(batch.image[1], large.images[0:2][:, 0])


def test_places_are_uniform_and_depend_on_seed_epoch_and_rank_only() -> None:
    slices = BalancedBatches(np.ones(400, bool), 4, 400, 0.5, seed=7)

    def epoch(number: int, seed: int = 0, rank: int = 0) -> np.ndarray:
        batches = PatchBatches(slices, depth=5, seed=seed, rank=rank)
        batches.set_epoch(number)
        assert len(batches) == 100
        return np.concatenate(list(batches))

    np.testing.assert_array_equal(epoch(3), epoch(3))
    np.testing.assert_array_equal(epoch(3)[:, 0], np.concatenate(list(slices)))  # whose epoch is 3 now
    for other in (epoch(4), epoch(3, seed=1), epoch(3, rank=1)):
        assert (epoch(3)[:, 1] != other[:, 1]).any()
    counts = np.bincount(epoch(3)[:, 1])
    assert len(counts) == 5
    assert (abs(counts - 80) < 4 * np.sqrt(400 * 0.2 * 0.8)).all()


def test_a_scored_volume_has_all_slices_and_says_which_are_scored(case: StoredCase) -> None:
    partly = replace(case, ignored_slices=(5,))
    volumes = ScoredVolumes([part(case, *range(12)), part(partly, 4, 6, 10)])
    assert len(volumes) == 3
    assert volumes[0].image.shape == (12, 1, 7, 5)
    assert volumes[0].scored.tolist() == list(range(12))
    batch = volumes[1]
    np.testing.assert_array_equal(batch.image, case.images[4:7])
    assert (batch.case_index, batch.slice_index.tolist(), batch.scored.tolist()) == (1, [4, 6], [0, 2])
    np.testing.assert_array_equal(batch.reference, case.reference[np.array([4, 6])])
    np.testing.assert_array_equal(batch.label[:, 0], case.labels[np.array([4, 6])])
    assert volumes[2].slice_index.tolist() == [10]


def test_volumes_are_divided_among_processes_or_refused(case: StoredCase) -> None:
    parts = [part(case, *range(12))] * 4
    assert [len(ScoredVolumes(parts, rank, 2)) for rank in (0, 1)] == [2, 2]
    with pytest.raises(InputError, match="4 of them cannot be divided equally among 3 processes"):
        ScoredVolumes(parts, 0, 3)
