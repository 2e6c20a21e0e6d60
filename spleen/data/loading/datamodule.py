"""The LightningDataModule: stored cases, their split, and the data loaders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Bool
from torch.utils.data import DataLoader

from spleen.data.loading.batches import (
    BalancedBatches,
    CaseSlices,
    ScoredBatch,
    ScoredSlices,
    SliceBatch,
    SliceTable,
    TrainingSlices,
)
from spleen.data.loading.on_device import CachedOnDevice, SteppedBatches, has_room
from spleen.data.loading.patches import PatchBatches, ScoredVolumes, TrainingPatches
from spleen.data.splits.blocks import SliceSplit
from spleen.data.store.entry import StoredCase

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class LoaderSettings:
    """How slices become batches."""

    batch_size: int
    slices_per_epoch: int | None
    foreground_fraction: float
    num_workers: int
    context_slices: int
    seed: int
    steps_at_once: int | None = None
    """Steps for which the trainer gets slice numbers, instead of slices; None: slices, step by step."""
    patch_depth: int | None = None
    """Slices of a patch, for a 3D network; None: slices."""


class SliceDataModule(pl.LightningDataModule):
    """Serves the slices of opened cases by split; `splits` has one SliceSplit per case, in the same order.

    `skipped` maps the case_ids of excluded cases to the reason.

    The loaders have their own generators: otherwise each new iterator would draw from torch's global state, and an
    additional iterator, as in a resumed run, would change every dropout after it.
    """

    def __init__(
        self,
        cases: Sequence[StoredCase],
        splits: Sequence[SliceSplit],
        settings: LoaderSettings,
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.cases = tuple(cases)
        self.skipped = dict(skipped or {})
        self.splits = tuple(splits)
        self.settings = settings
        self._first_epoch = 0

    def state_dict(self) -> dict[str, int]:
        """The epoch after a checkpoint; Lightning stores it there."""
        assert self.trainer is not None
        return {"next_epoch": self.trainer.current_epoch + 1}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Start with the epoch after the checkpoint."""
        self._first_epoch = state_dict["next_epoch"]

    def slices(self, split: Split) -> list[CaseSlices]:
        """The cases with slices in a split, each with those slices."""
        indices = [np.array(getattr(each, split), dtype=np.int64) for each in self.splits]
        return [CaseSlices(case, index) for case, index in zip(self.cases, indices, strict=True) if len(index)]

    def cases_in(self, split: Split) -> list[StoredCase]:
        """The cases with slices in a split."""
        return [part.case for part in self.slices(split)]

    @property
    def _place(self) -> tuple[int, int]:
        """Global rank and world size of this process."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def train_dataloader(self) -> DataLoader[SliceBatch] | SteppedBatches:
        """The shuffled, foreground-balanced batches of one epoch."""
        if self.settings.steps_at_once is None:
            return self.slice_batches()
        table = SliceTable(tuple(self.slices("train")), self.settings.context_slices)
        return SteppedBatches(table, self._sampler(table.foreground), self.settings.steps_at_once)

    def slice_batches(self) -> DataLoader[SliceBatch]:
        """The training batches as slices or patches, read from the store."""
        parts, depth = self.slices("train"), self.settings.patch_depth
        dataset: TrainingSlices | TrainingPatches
        if depth is None:
            dataset = TrainingSlices(parts, self.settings.context_slices)
            sampler: BalancedBatches | PatchBatches = self._sampler(dataset.table.foreground)
        else:
            dataset = TrainingPatches(parts, depth)
            sampler = PatchBatches(self._sampler(dataset.table.foreground), depth, self.settings.seed, self._place[0])
            sampler.set_epoch(self._first_epoch)
        workers = self.settings.num_workers
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),
        )

    def _sampler(self, foreground: Bool[np.ndarray, " n"]) -> BalancedBatches:
        settings = self.settings
        sampler = BalancedBatches(
            foreground,
            settings.batch_size,
            settings.slices_per_epoch,
            settings.foreground_fraction,
            settings.seed,
            *self._place,
        )
        # Workers prefetch before the trainer sets the sampler's epoch.
        sampler.set_epoch(self._first_epoch)
        return sampler

    def val_dataloader(self) -> DataLoader[ScoredBatch]:
        """The validation slices in order."""
        return self._scored("val")

    def test_dataloader(self) -> DataLoader[ScoredBatch]:
        """The test slices in order."""
        return self._scored("test")

    def _scored(self, split: Split) -> DataLoader[ScoredBatch]:
        if self.settings.patch_depth is not None:
            volumes = ScoredVolumes(self.slices(split), *self._place)
            return DataLoader(volumes, batch_size=None, generator=torch.Generator())
        dataset = ScoredSlices(self.slices(split), self.settings.context_slices, self.settings.batch_size, *self._place)
        if self.settings.steps_at_once is None:
            return DataLoader(dataset, batch_size=None, generator=torch.Generator())
        cached = CachedOnDevice(dataset, self._device, partial(has_room, self._device))
        return DataLoader(cached, batch_size=None, generator=torch.Generator())
