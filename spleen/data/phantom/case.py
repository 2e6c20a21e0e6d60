"""The phantom as a case: computed once, written as NIfTI, and read back like any other file."""

import hashlib
import logging
from pathlib import Path

from spleen.data.cases import Case
from spleen.errors import InputError
from spleen.system.files import new_folder, remove_stale

log = logging.getLogger(__name__)


def phantom_files(cache: Path, matrix: int, n_slices: int, seed: int, noise_hu: float) -> Case:
    """Where the phantom's files are under `cache`, or will be."""
    name = f"phantom-{matrix}x{matrix}x{n_slices}-seed{seed}-noise{noise_hu:g}"
    folder = cache / "phantom" / _code_version() / name
    return Case(f"phantom_{seed}", (folder / "image.nii.gz",), folder / "label.nii.gz")


def phantom_case(cache: Path, matrix: int, n_slices: int, seed: int, noise_hu: float) -> Case:
    """The phantom's files under `cache`, created if missing.

    Raises InputError for a folder that cannot be written and for an invalid geometry.
    """
    case = phantom_files(cache, matrix, n_slices, seed, noise_hu)
    folder = case.label.parent
    try:
        if not folder.is_dir():
            from spleen.data.phantom.render import make_phantom  # imports SciPy
            from spleen.imaging.nifti import write_volume

            log.info("computing the phantom %s", folder.name)
            phantom = make_phantom(matrix, n_slices, seed, noise_hu)
            remove_stale(folder.parent)
            with new_folder(folder) as temporary:
                write_volume(temporary / case.images[0].name, phantom.hu, phantom.affine)
                write_volume(temporary / case.label.name, phantom.label, phantom.affine)
    except OSError as error:
        raise InputError(f"cannot write the phantom under {cache}: {error}. Choose another cache_dir=…") from error
    return case


def _code_version() -> str:
    """A hash of the code that computes the phantom, so that a changed code invalidates cached phantoms."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
