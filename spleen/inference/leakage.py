"""Which cases a run learnt from and which it held out, so that no case is judged by a run that knows it."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spleen.errors import InputError
from spleen.imaging.fingerprint import fingerprint
from spleen.imaging.native import NativeImage
from spleen.inference.ensemble import View
from spleen.inference.loading import TrainedModel
from spleen.records.cases import KnownCases, read_known_cases
from spleen.records.folder import run_folder_of
from spleen.system.text import shortened

log = logging.getLogger(__name__)

NOTHING_NEW = "The scores of their masks say nothing about new cases"


def known_cases(model: TrainedModel) -> KnownCases | None:
    """The cases that the run of a model knows; None where its checkpoint lies in no run folder that tells."""
    folder = run_folder_of(model.checkpoint)
    return None if folder is None else read_known_cases(folder)


def views_that_held_out(views: Sequence[View], case_ids: Sequence[str]) -> dict[str, list[View]]:
    """For each case the views whose runs held it out, their weights adding up to 1; without the cases that none did.

    Raises InputError for a run that does not tell which cases it held out, and where no case is left.
    """
    known = [(view, known_cases(view.model)) for view in views]
    silent = [view.model.checkpoint for view, cases in known if cases is None]
    if silent:
        raise InputError(
            f"--held-out needs the folders of runs that held out whole cases; {silent[0]} has no split.json above it "
            "that names them"
        )
    chosen: dict[str, list[View]] = {}
    for case_id in case_ids:
        fitting = [view for view, cases in known if cases is not None and case_id in cases.held_out]
        if total := sum(view.weight for view in fitting):
            chosen[case_id] = [replace(view, weight=view.weight / total) for view in fitting]
    if not chosen:
        held_out = sorted(frozenset().union(*(cases.held_out for _, cases in known if cases is not None)))
        told = f"they held out {shortened(held_out)}" if held_out else "none"
        raise InputError(f"--held-out: none of the images is called as a case that these runs held out ({told})")
    return chosen


def views_that_saw(views: Sequence[View], image: NativeImage) -> list[View]:
    """The views whose runs learnt from this very image, whatever its file is called, oriented or compressed.

    Empty where they do not tell: checkpoints from before this was recorded.
    """
    if not any(view.model.spec.seen_images for view in views):
        return []
    image_fingerprint = fingerprint(image.channels)
    return [view for view in views if image_fingerprint in view.model.spec.seen_images]


def check_unseen(seen_by: Sequence[View], path: Path) -> None:
    """Raise InputError for an image that is called as a held-out case, and is one that a run learnt from."""
    if seen_by:
        raise InputError(
            f"{path} is, voxel by voxel, an image that {seen_by[0].model.name} learnt from under another name, so "
            "--held-out leaves it out"
        )


def warn_of_same_images(case_ids: Sequence[str], n_images: int, consequence: str = NOTHING_NEW) -> None:
    """Warn of images that the runs learnt from, as `views_that_saw` finds out."""
    if case_ids:
        log.warning(
            "%d of %d images are, voxel by voxel, images that these runs learnt from: %s. %s",
            len(case_ids),
            n_images,
            shortened(case_ids, 3),
            consequence,
        )


def called_as_seen(views: Sequence[View], case_ids: Sequence[str]) -> list[str]:
    """The images that are called as cases that the runs learnt from, as split.json in their folders tells."""
    seen = frozenset().union(*(cases.seen for cases in (known_cases(view.model) for view in views) if cases))
    return [case_id for case_id in case_ids if case_id in seen]


def warn_of_same_names(case_ids: Sequence[str], n_images: int) -> None:
    """Warn of images that `called_as_seen` finds: before any of them is read."""
    if case_ids:
        log.warning(
            "%d of %d images are called as cases that these runs learnt from: %s. %s. --held-out predicts each case by "
            "the runs that held it out alone",
            len(case_ids),
            n_images,
            shortened(case_ids, 3),
            NOTHING_NEW,
        )
