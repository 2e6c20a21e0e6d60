"""Which cases a run was trained on and which it held out, so that no case is scored by a run trained on it."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spleen.errors import InputError
from spleen.imaging.fingerprint import fingerprint
from spleen.imaging.native import NativeImage
from spleen.inference.loading import TrainedModel
from spleen.inference.views.view import View
from spleen.records.cases import KnownCases, read_known_cases
from spleen.records.folder import run_folder_of
from spleen.system.text import shortened

log = logging.getLogger(__name__)

_BIASED = "The scores of their masks do not generalise to new cases"


def known_cases(model: TrainedModel) -> KnownCases | None:
    """The cases that a model was trained on or held out; None unless its checkpoint is in a run folder with a split."""
    folder = run_folder_of(model.checkpoint)
    return None if folder is None else read_known_cases(folder)


def views_that_held_out(views: Sequence[View], case_ids: Sequence[str]) -> dict[str, list[View]]:
    """For each case, the views whose runs held it out, weights adding up to 1; cases without any are absent.

    Raises InputError for a run without a record of its held-out cases, and if no case is left.
    """
    known = [(view, known_cases(view.model)) for view in views]
    unknown = [view.model.checkpoint for view, cases in known if cases is None]
    if unknown:
        raise InputError(
            f"--held-out needs run folders of trainings that held out whole cases; {unknown[0]} is not in a "
            "folder whose split.json lists them"
        )
    chosen: dict[str, list[View]] = {}
    for case_id in case_ids:
        fitting = [view for view, cases in known if cases is not None and case_id in cases.held_out]
        if total := sum(view.weight for view in fitting):
            chosen[case_id] = [replace(view, weight=view.weight / total) for view in fitting]
    if not chosen:
        held_out = sorted(frozenset().union(*(cases.held_out for _, cases in known if cases is not None)))
        names = shortened(held_out) if held_out else "none"
        raise InputError(f"--held-out: no image has the name of a case that these runs held out ({names})")
    return chosen


def views_that_saw(views: Sequence[View], image: NativeImage) -> list[View]:
    """The views trained on this very image, regardless of file name, orientation and compression.

    Empty for checkpoints written by older versions, which do not record their images.
    """
    if not any(view.model.spec.seen_images for view in views):
        return []
    image_fingerprint = fingerprint(image.channels)
    return [view for view in views if image_fingerprint in view.model.spec.seen_images]


def check_unseen(seen_by: Sequence[View], path: Path) -> None:
    """Raise InputError for an image that has the name of a held-out case, but that a run was trained on."""
    if seen_by:
        raise InputError(
            f"{path} is, voxel by voxel, an image that {seen_by[0].model.name} was trained on under another name; "
            "--held-out skips it"
        )


def warn_of_same_images(case_ids: Sequence[str], n_images: int, consequence: str = _BIASED) -> None:
    """Warn of images that the runs were trained on, as found by `views_that_saw`."""
    _warn(case_ids, n_images, "are, voxel by voxel, images", consequence)


def named_like_training_cases(views: Sequence[View], case_ids: Sequence[str]) -> list[str]:
    """The images that have the name of a train or val case in split.json of one of the runs."""
    seen = frozenset().union(*(cases.seen for cases in (known_cases(view.model) for view in views) if cases))
    return [case_id for case_id in case_ids if case_id in seen]


def warn_of_same_names(case_ids: Sequence[str], n_images: int) -> None:
    """Warn of images found by `named_like_training_cases`, before any of them is read."""
    advice = f"{_BIASED}. Add --held-out to predict each case only with the runs that held it out"
    _warn(case_ids, n_images, "have the names of cases", advice)


def _warn(case_ids: Sequence[str], n_images: int, relation: str, advice: str) -> None:
    if case_ids:
        text = "%d of %d images %s that these runs were trained on: %s. %s"
        log.warning(text, len(case_ids), n_images, relation, shortened(case_ids, 3), advice)
