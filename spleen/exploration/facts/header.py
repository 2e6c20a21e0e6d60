"""What the header of a NIfTI file or a DICOM series says, also where its voxels cannot be used."""

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from spleen.errors import InputError
from spleen.exploration.facts.dicom import DicomFacts, dicom_facts
from spleen.imaging.dicom.location import is_series
from spleen.imaging.dicom.series import NotChosenError, Series
from spleen.imaging.dicom.volume import series_of
from spleen.imaging.geometry import (
    affine_to_ras,
    check_affine,
    grid_distance_mm,
    orientation,
    shear_degrees,
    spacing_mm,
)
from spleen.imaging.nifti import _in_mm, _open
from spleen.imaging.slicing import AXES, slice_spacing_mm
from spleen.types import Affine, AxisName, SpacingMm

NOT_SET = "not set"
UNKNOWN_CODE = "unknown code"
BYTES_PER_VOXEL = 22
"""What the exploration of one case needs at most, measured."""
# Spacings whose ratio is below are the same to the eye, and isotropic.
_SAME_SPACING = 1.01


@dataclass(frozen=True)
class PlaneFacts:
    """One anatomical slicing axis, and where the file keeps it."""

    axis: AxisName
    array_axis: int
    """Position of this axis in the file's array: 0, 1 or 2."""
    n_slices: int
    spacing_mm: float
    """Between neighbouring slices, perpendicular to them."""
    pixel_mm: tuple[float, float]
    """Height and width of a pixel within the slice."""


@dataclass(frozen=True)
class GeometryFacts:
    """Where the voxels lie. Spacings are along the file's array axes."""

    spacing_mm: SpacingMm
    pixdim_mm: SpacingMm
    """The spacing that the header repeats beside its affine; other programs may read only this one."""
    orientation: str
    oblique_degrees: float
    """Largest angle between an array axis and the body axis nearest to it."""
    shear_degrees: float
    """Largest departure of two array axes from the right angle."""
    sform_code: int | None
    qform_code: int | None
    """None in DICOM, which has neither."""
    form_distance_mm: float | None
    """How far apart sform and qform place the same voxel, at most; None unless both are set."""
    planes: tuple[PlaneFacts, ...]
    """Sagittal, coronal, axial."""

    @property
    def anisotropy(self) -> float:
        """Largest spacing divided by the smallest."""
        return max(self.spacing_mm) / min(self.spacing_mm)

    @property
    def is_isotropic(self) -> bool:
        """Whether the three spacings agree within one per cent."""
        return self.anisotropy < _SAME_SPACING

    def plane(self, axis: AxisName) -> PlaneFacts:
        """The plane of an anatomical axis."""
        return self.planes[AXES.index(axis)]


@dataclass(frozen=True)
class HeaderFacts:
    """The header of one file."""

    format: str
    file_bytes: int
    shape: tuple[int, ...]
    data_type: str
    bits_per_voxel: int
    scl_slope: float
    scl_inter: float
    """NaN for a DICOM series whose slices are scaled differently."""
    spatial_unit: str
    temporal_unit: str
    geometry: GeometryFacts | None
    """None where the affine is damaged, or the file has fewer than three dimensions."""
    dicom: DicomFacts | None = None
    """Of a DICOM series."""


def open_header(path: Path, channels: bool = False) -> tuple[nib.nifti1.Nifti1Pair | None, InputError | None]:
    """Open a file without its voxels: the image, and the reason why its voxels must not be read.

    The image is None where not even the header can be read. Both come where it can, but promises something that is
    refused, such as a fourth dimension; with `channels`, that is not.
    """
    try:
        return _open(path, BYTES_PER_VOXEL, channels, uneven=True), None
    except NotChosenError as error:
        return None, error
    except InputError as error:
        refused = error
    if is_series(path):
        return None, refused
    with suppress(Exception):  # the reason is already known
        loaded = nib.load(path)
        return loaded if isinstance(loaded, nib.nifti1.Nifti1Pair) else None, refused
    return None, refused


def header_facts(nifti: nib.nifti1.Nifti1Pair, path: Path, identifying: bool = False) -> HeaderFacts:
    """Read the facts off an opened file; with `identifying`, also what identifies the patient in DICOM."""
    if isinstance(nifti, nib.nifti1.Nifti1Image) and (series := series_of(nifti)) is not None:
        return _series_facts(series, nifti, path, identifying)
    spatial, temporal = _units(nifti)
    data_type, voxels = nifti.get_data_dtype(), nifti.dataobj
    assert isinstance(voxels, nib.arrayproxy.ArrayProxy)
    geometry = None
    with suppress(InputError):  # told when the affine is needed
        geometry = _geometry(nifti, path)
    return HeaderFacts(
        format="NIfTI-2" if isinstance(nifti.header, nib.nifti2.Nifti2Header) else "NIfTI-1",
        file_bytes=path.stat().st_size,
        shape=tuple(int(size) for size in nifti.shape),
        data_type=data_type.name,
        bits_per_voxel=8 * data_type.itemsize,
        # nibabel clears the fields of the header when it hands the scaling on to the array.
        scl_slope=float(voxels.slope),
        scl_inter=float(voxels.inter),
        spatial_unit=spatial,
        temporal_unit=temporal,
        geometry=geometry,
    )


def _series_facts(series: Series, image: nib.nifti1.Nifti1Image, path: Path, identifying: bool) -> HeaderFacts:
    formats = {frame.instance.pixels for frame in series.frames}
    types = {f"{'' if each.signed else 'u'}int{each.bits_allocated}" for each in formats}
    scales = {(frame.slope, frame.intercept) for frame in series.frames}
    slope, intercept = scales.pop() if len(scales) == 1 else (math.nan, math.nan)
    geometry = None
    with suppress(InputError):
        geometry = replace(_geometry(image, path), sform_code=None, qform_code=None, form_distance_mm=None)
    return HeaderFacts(
        format="DICOM",
        file_bytes=sum(file.stat().st_size for file in {frame.instance.path for frame in series.frames}),
        shape=series.shape,
        data_type=", ".join(sorted(types)),
        bits_per_voxel=max(each.bits_allocated for each in formats),
        scl_slope=slope,
        scl_inter=intercept,
        spatial_unit="mm",
        temporal_unit=NOT_SET,
        geometry=geometry,
        dicom=dicom_facts(series, identifying),
    )


def _units(nifti: nib.nifti1.Nifti1Pair) -> tuple[str, str]:
    try:
        spatial, temporal = nifti.header.get_xyzt_units()
    except KeyError:
        return (f"{UNKNOWN_CODE} {int(nifti.header['xyzt_units'])}",) * 2
    return NOT_SET if spatial == "unknown" else str(spatial), NOT_SET if temporal == "unknown" else str(temporal)


def affine_in_mm(nifti: nib.nifti1.Nifti1Pair, path: Path) -> Affine:
    """The affine of a file in mm. Raises InputError for one that places no voxels in space."""
    affine = _in_mm(np.asarray(nifti.affine, dtype=np.float64), nifti, path)
    check_affine(affine)
    return affine


def _geometry(nifti: nib.nifti1.Nifti1Pair, path: Path) -> GeometryFacts:
    if len(nifti.shape) < 3 or min(nifti.shape) < 1:
        raise InputError(f"{path} has no three dimensions")
    i, j, k = (int(size) for size in nifti.shape[:3])
    affine = affine_in_mm(nifti, path)
    x, y, z = (float(size) for size in nifti.header.get_zooms()[:3])
    return GeometryFacts(
        spacing_mm=spacing_mm(affine),
        pixdim_mm=spacing_mm(_in_mm(np.diag([x, y, z, 1.0]), nifti, path)),
        orientation=orientation(affine),
        oblique_degrees=float(np.degrees(nib.affines.obliquity(affine)).max()),
        shear_degrees=shear_degrees(affine),
        sform_code=int(nifti.header["sform_code"]),
        qform_code=int(nifti.header["qform_code"]),
        form_distance_mm=_form_distance_mm(nifti, path, (i, j, k)),
        planes=_planes(affine, (i, j, k)),
    )


def _form_distance_mm(nifti: nib.nifti1.Nifti1Pair, path: Path, shape: tuple[int, int, int]) -> float | None:
    try:
        forms = nifti.header.get_sform(coded=True)[0], nifti.header.get_qform(coded=True)[0]
    except (nib.spatialimages.HeaderDataError, ValueError):
        return None  # a qform without a rotation in it; the sform is what counts
    if forms[0] is None or forms[1] is None:
        return None
    first, second = (_in_mm(np.asarray(form, dtype=np.float64), nifti, path) for form in forms)
    distance = grid_distance_mm(shape, first, second)
    return distance if np.isfinite(distance) else None


def _planes(affine: Affine, shape: tuple[int, int, int]) -> tuple[PlaneFacts, ...]:
    ras_affine = affine_to_ras(affine, shape)
    array_axes = [int(axis) for axis in np.argsort(nib.orientations.io_orientation(affine)[:, 0])]
    planes = []
    for axis, array_axis in zip(AXES, array_axes, strict=True):
        between, height, width = slice_spacing_mm(ras_affine, axis)
        planes.append(PlaneFacts(axis, array_axis, shape[array_axis], between, (height, width)))
    return tuple(planes)
