"""The result of a follow-up: subjects, their courses, and what holds for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from spleen.evaluation.scan.pictures import Picture
from spleen.followup.change import RepeatabilityLimit
from spleen.followup.course import Course
from spleen.followup.group import GroupChange
from spleen.followup.scans import Scan
from spleen.registration.transforms import Motion


@dataclass(frozen=True)
class Voxelwise:
    """What has changed voxel by voxel since the first counted scan of a subject."""

    gain_ml: Mapping[str, float]
    """By class; without the classes that have no counted scan before this one."""
    loss_ml: Mapping[str, float]
    motion: Motion | None
    pictures: Mapping[str, tuple[Picture, ...]]
    """By class."""


@dataclass(frozen=True)
class Subject:
    """All that is known of one subject."""

    name: str
    scans: tuple[Scan, ...]
    courses: tuple[Course, ...]
    """One per class."""
    voxelwise: Mapping[Scan, Voxelwise] = field(default_factory=dict)
    not_aligned: Mapping[Scan, str] = field(default_factory=dict)
    warnings: Mapping[Scan, Sequence[str]] = field(default_factory=dict)
    """What of a scan differs from the first one and may pass for a change."""


@dataclass(frozen=True)
class FollowUp:
    """The result of `follow_up`. Its text (`print`) is what the command prints."""

    subjects: tuple[Subject, ...]
    groups: tuple[GroupChange, ...]
    limits: Mapping[str, RepeatabilityLimit | None]
    """By class."""
    uncalibrated: str
    """Why volumes have no intervals; empty if they have."""
    no_limit: str
    """Why a change has no interval; empty if it has."""
    n_failed: int
    """Scans that could not be predicted."""

    def __str__(self) -> str:
        from spleen.followup.text import to_text

        return to_text(self)
