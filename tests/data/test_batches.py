from dataclasses import replace
from itertools import chain
from math import ceil

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spleen.data.cases import Case
from spleen.data.loading.batches import BalancedBatches, CaseSlices, ScoredSlices, TrainingSlices
from spleen.data.loading.datamodule import LoaderSettings, SliceDataModule
from spleen.data.splits.blocks import SliceSplit
from spleen.data.store.store import open_case
from spleen.imaging.classes import ClassMap
from spleen.imaging.intensity import CtWindow
from spleen.imaging.preprocessing import Preprocessing
from tests._helpers.nifti import ras_affine, save

SETTINGS = Preprocessing(
    axis="axial",
    img_size=7,
    resize="keep_aspect",
    size_multiple=1,
    intensity=CtWindow(window_level=0.0, window_width=200.0),
    classes=ClassMap(("organ",), ((1,),)),
    grid_tolerance_mm=0.1,
)


def _volumes(shape, seed):
    """Random HU within the window, and an organ on all axial slices but the first two and the last two."""
    image = np.random.default_rng(seed).integers(-90, 90, shape).astype(np.int16)
    label = np.zeros(shape, dtype=np.uint8)
    label[1:3, 2:5, 2:-2] = 1
    return image, label


def _stored(tmp_path, shape, seed=0, label=None, **changes):
    image, organ = _volumes(shape, seed)
    name = "x".join(map(str, shape))
    affine = ras_affine()
    case = Case(
        name,
        (save(tmp_path / f"{name}-ct.nii", image, affine),),
        save(tmp_path / f"{name}-seg.nii", organ if label is None else label, affine),
    )
    return open_case(case, replace(SETTINGS, **changes), tmp_path / "cache")


@pytest.fixture
def tall(tmp_path):
    """12 axial slices of 7 × 5 pixels, already on the network's grid."""
    return _stored(tmp_path, (5, 7, 12))


@pytest.fixture
def wide(tmp_path):
    """9 axial slices of 6 × 7 pixels."""
    return _stored(tmp_path, (7, 6, 9), seed=1)


def _case_slices(case, *indices):
    return CaseSlices(case, np.array(indices, dtype=np.int64))


def _axial(volume):
    """Slices of a RAS volume: along k, then rows along j and columns along i."""
    return np.moveaxis(volume, (2, 1, 0), (0, 1, 2))


def test_a_training_batch_contains_the_slices_with_their_context(tall):
    image, label = _volumes((5, 7, 12), 0)
    dataset = TrainingSlices([_case_slices(tall, 0, 3, 4, 11)], context_slices=1)
    assert len(dataset) == 4
    batch = dataset[np.array([3, 0, 2])]
    hu = _axial(image)
    expected = np.stack([hu[[10, 11, 11]], hu[[0, 0, 1]], hu[[3, 4, 5]]]) / 100
    assert batch.image.dtype == torch.float32
    np.testing.assert_allclose(batch.image, expected, atol=2**-12)
    np.testing.assert_array_equal(batch.label[:, 0], _axial(label)[[11, 0, 4]])
    assert batch.origin.tolist() == [[0, 11], [0, 0], [0, 4]]
    assert dataset.table.foreground.tolist() == [False, True, True, False]


def test_cases_of_different_sizes_are_batched_with_background_padding(tmp_path, tall):
    image, _ = _volumes((7, 6, 9), 1)
    full = _stored(tmp_path, (7, 6, 9), seed=1, label=np.ones((7, 6, 9), dtype=np.uint8))  # organ up to the edge
    dataset = TrainingSlices([_case_slices(tall, 5, 6), _case_slices(full, 0, 8)], context_slices=0)
    batch = dataset[np.array([3, 1, 2])]
    assert batch.image.shape == batch.label.shape == (3, 1, 7, 7)
    is_full = batch.label.flatten(1).sum(1) == 6 * 7
    assert is_full.sum() == 2
    assert batch.origin[is_full].tolist() == [[1, 8], [1, 0]]
    assert batch.origin[~is_full].tolist() == [[0, 6]]
    np.testing.assert_allclose(batch.image[is_full][0, 0, :6], _axial(image)[8] / 100, atol=2**-12)
    full_images = batch.image[is_full, 0, :6].numpy()
    np.testing.assert_allclose(
        sorted(full_images.tolist()), sorted((_axial(image)[[0, 8]] / 100).tolist()), atol=2**-12
    )
    assert not batch.label[is_full, 0, 6].any()
    assert (batch.image[is_full, 0, 6] <= full_images.min()).all()


@given(
    foreground=st.lists(st.booleans(), min_size=1, max_size=60).map(np.array),
    batch_size=st.integers(1, 20),
    slices_per_epoch=st.none() | st.integers(1, 200),
    foreground_fraction=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_batch_contains_its_foreground_fraction(
    foreground, batch_size, slices_per_epoch, foreground_fraction, seed
):
    sampler = BalancedBatches(foreground, batch_size, slices_per_epoch, foreground_fraction, seed)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    n_expected = slices_per_epoch or len(foreground)
    size = min(batch_size, n_expected)
    assert {len(batch) for batch in batches} == {size}
    assert n_expected - size < len(batches) * size <= max(n_expected, size)
    for batch in batches:
        assert batch.min() >= 0
        if foreground.any():
            assert foreground[batch].sum() >= ceil(foreground_fraction * size - 1e-9)


@given(n_slices=st.integers(2, 50), batch_size=st.integers(1, 10), passes=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_no_slice_is_repeated_before_all_have_been_drawn(n_slices, batch_size, passes, seed):
    sampler = BalancedBatches(np.zeros(n_slices, dtype=bool), batch_size, n_slices * passes, 0.5, seed)
    drawn = list(chain.from_iterable(sampler))
    for start in range(0, len(drawn), n_slices):
        one_pass = drawn[start : start + n_slices]
        assert len(set(one_pass)) == len(one_pass)


def test_no_foreground_slice_is_repeated_before_all_have_been_drawn():
    foreground = np.arange(20) < 8
    batches = list(BalancedBatches(foreground, 4, 16, foreground_fraction=0.5, seed=0))
    assert sorted(np.concatenate([batch[:2] for batch in batches])) == list(range(8))


def test_an_epoch_is_reproducible_and_differs_from_the_next():
    def epoch(number, seed=7):
        sampler = BalancedBatches(np.arange(30) < 10, 4, None, 0.5, seed)
        sampler.set_epoch(number)
        return np.concatenate(list(sampler)).tolist()

    assert epoch(3) == epoch(3)
    assert epoch(3) != epoch(4)
    assert epoch(3) != epoch(3, seed=8)


def test_scored_batches_contain_every_slice_once_in_order_and_never_mix_cases(tall, wide):
    dataset = ScoredSlices(
        [_case_slices(tall, 2, 3, 4, 5, 6), _case_slices(wide, 0, 8)], context_slices=1, batch_size=2
    )
    batches = [dataset[number] for number in range(len(dataset))]
    assert [(batch.case_index, batch.slice_index.tolist()) for batch in batches] == [
        (0, [2, 3]),
        (0, [4, 5]),
        (0, [6]),
        (1, [0, 8]),
    ]
    image, label = _volumes((7, 6, 9), 1)
    np.testing.assert_array_equal(batches[3].reference, _axial(label)[[0, 8]])
    np.testing.assert_allclose(batches[3].image, _axial(image)[[[0, 0, 1], [7, 8, 8]]] / 100, atol=2**-12)


def test_the_reference_of_a_scored_batch_stays_on_the_native_grid(tmp_path):
    _, label = _volumes((5, 7, 12), 0)
    enlarged = _stored(tmp_path, (5, 7, 12), img_size=14)
    batch = ScoredSlices([_case_slices(enlarged, 4, 5)], context_slices=0, batch_size=8)[0]
    assert batch.image.shape == (2, 1, 14, 10)
    np.testing.assert_array_equal(batch.reference, _axial(label)[[4, 5]])


LOADING = LoaderSettings(
    batch_size=3, slices_per_epoch=None, foreground_fraction=0.5, num_workers=0, context_slices=1, seed=0
)


@pytest.fixture
def data(tall, wide):
    """Two cases; the second has no validation slices."""
    splits = [SliceSplit((0, 1, 2, 8, 9, 10, 11), (4,), (6,), (3, 5, 7)), SliceSplit((0, 1, 2), (), (5, 6), (3, 4))]
    return SliceDataModule([tall, wide], splits, LOADING)


def test_each_dataloader_returns_only_the_slices_of_its_split(data, tall, wide):
    training = data.train_dataloader().dataset
    of_split = [_case_slices(tall, 0, 1, 2, 8, 9, 10, 11), _case_slices(wide, 0, 1, 2)]
    expected = TrainingSlices(of_split, context_slices=1)
    assert len(training) == 10
    for number in range(10):
        served, wanted = training[np.array([number])], expected[np.array([number])]
        assert torch.equal(served.image, wanted.image)
        assert torch.equal(served.label, wanted.label)
    scored = {
        stage: [(batch.case_index, batch.slice_index.tolist()) for batch in loader]
        for stage, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader()))
    }
    assert scored == {"val": [(0, [4])], "test": [(0, [6]), (1, [5, 6])]}
    assert [part.case.case_id for part in data.slices("val")] == ["5x7x12"]


class _RecordingModule(pl.LightningModule):
    """Learns nothing; records the batches it receives."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs: list[list[float]] = []

    def on_train_epoch_start(self):
        self.epochs.append([])

    def training_step(self, batch):
        self.epochs[-1] += batch.image.flatten(1).sum(1).tolist()
        return 0 * self.weight

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`")
def test_lightning_draws_different_batches_each_epoch_and_the_same_ones_when_rerun(tmp_path, data):
    runs = []
    for _ in range(2):
        module = _RecordingModule()
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            default_root_dir=tmp_path,
        )
        trainer.fit(module, data)
        runs.append(module.epochs)
    assert runs[0] == runs[1]
    assert len(runs[0][0]) == 9  # three full batches of three
    assert runs[0][0] != runs[0][1]
