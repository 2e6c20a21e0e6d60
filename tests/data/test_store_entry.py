import numpy as np
import pytest

from spleen.data.store.entry import StoredArray


@pytest.fixture
def written(tmp_path):
    """An array of 6 planes of 2 × 3 × 5 distinct values, and its file."""
    array = np.arange(6 * 30, dtype=np.float16).reshape(6, 2, 3, 5)
    np.save(tmp_path / "images.npy", array)
    return array, tmp_path / "images.npy"


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        slice(None),
        slice(1, 6, 2),
        slice(3, 1),
        np.array([4, 0, 5]),
        np.array([2, 2, 3, 4, 1]),
        np.array([-1, -6]),
        np.array([[0, 0, 1], [4, 5, 5]]),
        np.array([], dtype=np.int64),
        (slice(None), 1, slice(None, 2), slice(3, None)),
        (2, 0, 1),
        (np.array([3, 1]), 1),
        (np.array([[3, 1]]), slice(1, 2), 2),
    ],
    ids=str,
)
def test_indexing_matches_numpy(written, index):
    array, path = written
    found, expected = StoredArray.at(path)[index], array[index]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("index", [6, -7, np.array([0, 6])], ids=str)
def test_out_of_range_planes_raise_an_index_error(written, index):
    with pytest.raises(IndexError):
        StoredArray.at(written[1])[index]


def test_indexing_returns_a_copy(written):
    array, path = written
    stored = StoredArray.at(path)
    stored[2][:] = 0
    np.testing.assert_array_equal(stored, array)


@pytest.mark.parametrize("n_bytes", [0, 7, 100, 200])
def test_a_truncated_file_is_rejected(written, n_bytes):
    _, path = written
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(ValueError):  # noqa: PT011, since NumPy words some of the messages
        StoredArray.at(path)


def test_a_file_truncated_after_opening_is_detected(written):
    _, path = written
    stored = StoredArray.at(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert stored[4].shape == (2, 3, 5)
    with pytest.raises(OSError, match=r"images\.npy has been truncated"):
        stored[5]
