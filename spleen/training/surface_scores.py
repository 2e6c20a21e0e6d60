"""Surface scores of whole test cases, computed while they are scored, where that costs next to nothing."""

import time
from collections.abc import Sequence

import numpy as np

from spleen.data.loading.batches import ScoredBatch
from spleen.data.store.entry import StoredCase
from spleen.evaluation.evaluate import TOLERANCE_MM
from spleen.evaluation.metrics.surface import (
    average_surface_distance_mm,
    hausdorff95_mm,
    surface_dice,
    surface_distances,
)
from spleen.imaging.classes import in_class
from spleen.imaging.geometry import SHEARED_DEGREES
from spleen.imaging.labels import IGNORED
from spleen.records.surfaces import SurfaceScore
from spleen.types import LabelPlanes

_MOST_SECONDS = 1.5
_FEWEST_TIMED = 3  # cases: the first one alone says little
_MOST_VOXELS = 1 << 26


class SurfaceAccumulator:
    """Scores each case once all of its labelled slices have been added, in order; `spleen evaluate` has no such limits.

    Nothing is scored for a volume that is split by slices, whose blocks have no whole surface, for cases whose slices
    are spread over processes, and on sheared grids. As soon as all cases together are expected to take longer than
    1.5 s of this thread, all scores are dropped: a mean over some of the cases would be misread.
    """

    def __init__(self, cases: Sequence[StoredCase], class_names: tuple[str, ...]) -> None:
        self._cases = tuple(cases)
        self._class_names = class_names
        self._scores: list[SurfaceScore] = []
        self._case_index = -1
        self._prediction = np.empty((0, 0, 0), np.uint8)
        self._n_added = self._n_scored = 0
        self._seconds = 0.0
        self._gave_up = any(case.shear_degrees > SHEARED_DEGREES for case in self._cases)

    @property
    def scores(self) -> tuple[SurfaceScore, ...]:
        """Of every case, or of none."""
        return tuple(self._scores) if self._n_scored == len(self._cases) and not self._gave_up else ()

    def add(self, prediction: LabelPlanes, batch: ScoredBatch) -> None:
        """Add class indices of slices on the native planes."""
        if self._gave_up:
            return
        if batch.case_index != self._case_index:
            shape = self._cases[batch.case_index].reference.shape
            if np.prod(shape) > _MOST_VOXELS:
                self._gave_up = True
                return
            self._case_index, self._n_added = batch.case_index, 0
            self._prediction = np.zeros(shape, np.uint8)
        place = self._cases[self._case_index].in_volume(batch.slice_index.cpu().numpy())
        self._prediction[place] = prediction.cpu().numpy()
        self._n_added += len(prediction)
        if self._n_added == len(self._cases[self._case_index].labelled_slices):
            started = time.thread_time()
            self._score(self._cases[self._case_index])
            self._n_scored += 1
            self._seconds += time.thread_time() - started
            expected = self._seconds / self._n_scored * len(self._cases) if self._n_scored >= _FEWEST_TIMED else 0.0
            self._gave_up = max(expected, self._seconds) > _MOST_SECONDS

    def _score(self, case: StoredCase) -> None:
        reference, ignores = case.reference[:], case.ignored_volume_mm3 > 0
        for number, name in enumerate(self._class_names, start=1):
            masks = in_class(self._prediction, number, case.regions), in_class(reference, number, case.regions)
            distances = surface_distances(*masks, case.spacing_mm, reference == IGNORED if ignores else None)
            self._scores.append(
                SurfaceScore(
                    case.case_id,
                    name,
                    hausdorff95_mm(distances),
                    average_surface_distance_mm(distances),
                    surface_dice(distances, TOLERANCE_MM),
                )
            )
