"""Reading a file for its facts: what is wrong with it becomes a finding, and what is right is kept."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spleen.errors import InputError
from spleen.exploration.facts.findings import Finding
from spleen.exploration.facts.header import HeaderFacts, affine_in_mm, header_facts, open_header
from spleen.imaging.dicom.series import NotChosenError
from spleen.imaging.geometry import reorient_to_ras
from spleen.imaging.nifti import Volume, _decode, read_label

NOT_CHOSEN = "several series"
"""Topic of the finding about a DICOM folder in which none is chosen."""


@dataclass(frozen=True)
class ReadFile:
    """One file as far as it could be read; without voxels, the findings say why."""

    header: HeaderFacts | None
    volume: Volume | None
    findings: tuple[Finding, ...]


@contextmanager
def _reader_quiet() -> Iterator[None]:
    """Hold back the readers' warnings: the findings say the same."""
    loggers = [logging.getLogger(name) for name in ("spleen.imaging.nifti", "spleen.imaging.dicom.volume")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@_reader_quiet()
def read_image_file(path: Path, identifying: bool = False, channels: bool = False) -> ReadFile:
    """Read an image on its RAS grid, NaN and Inf included: they are counted later.

    `identifying` is that of `header_facts`. With `channels` the file may have several in its fourth dimension, of which
    the first is read.
    """
    nifti, refused = open_header(path, channels)
    header = header_facts(nifti, path, identifying) if nifti is not None else None
    if nifti is None or refused is not None:
        return ReadFile(header, None, (_unreadable("image", refused),))
    try:
        array = np.asarray(_decode(nifti, path, np.dtype(np.float32), channels))
    except InputError as error:
        return ReadFile(header, None, (_unreadable("image", error),))
    try:
        file_affine = affine_in_mm(nifti, path)
    except InputError as error:
        return ReadFile(header, None, (Finding("error", "damaged affine", f"{path}: {error}"),))
    first = array[..., 0] if channels else array
    return ReadFile(header, Volume(*reorient_to_ras(first, file_affine), file_affine), ())


@_reader_quiet()
def read_label_file(path: Path, image: Volume | None) -> ReadFile:
    """Read a label map as a training would, along the array axes of its image."""
    nifti, refused = open_header(path)
    header = header_facts(nifti, path) if nifti is not None else None
    if refused is not None:
        return ReadFile(header, None, (_unreadable("label", refused),))
    try:
        return ReadFile(header, read_label(path, None if image is None else image.affine), ())
    except InputError as error:
        return ReadFile(header, None, (_unreadable("label", error),))


def _unreadable(what: str, error: InputError | None) -> Finding:
    if isinstance(error, NotChosenError):
        return Finding("error", NOT_CHOSEN, error.without_descriptions)
    return Finding("error", f"{what} cannot be used", str(error))
