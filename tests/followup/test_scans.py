"""Subject, date and image of each scan."""

from datetime import date
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen.errors import InputError
from spleen.followup.scans import read_pairs, read_scans


def _volume(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((5, 4, 3), np.int16), np.diag([1, 1, 2, 1])), path)
    return path


def _table(folder: Path, *lines: str) -> Path:
    path = folder / "scans.csv"
    path.write_text("\n".join(lines))
    return path


def test_a_table_lists_scans_by_subject_and_date(tmp_path: Path) -> None:
    late, early, label = (_volume(tmp_path / name) for name in ("late.nii.gz", "early.nii.gz", "label.nii.gz"))
    other = _volume(tmp_path / "other.nii.gz")
    table = _table(
        tmp_path,
        "subject,date,image,label,remark",
        "anna b,2024-07-01,late.nii.gz,,x",
        "anna b,20240102,early.nii.gz,label.nii.gz,",
        "zoe,2020-02-29,other.nii.gz",
    )
    scans = read_scans([table])
    assert [(scan.subject, scan.day, scan.images, scan.reference) for scan in scans] == [
        ("anna b", date(2024, 1, 2), (early,), label),
        ("anna b", date(2024, 7, 1), (late,), None),
        ("zoe", date(2020, 2, 29), (other,), None),
    ]
    assert [scan.name for scan in scans] == ["anna_b_2024-01-02", "anna_b_2024-07-01", "zoe_2020-02-29"]


def test_pairs_whose_files_would_have_one_name_are_refused(tmp_path: Path) -> None:
    lines = [f"{who},2024-01-0{day},{_volume(tmp_path / f'{day}.nii.gz').name}" for who in "МВ" for day in (1, 2)]
    with pytest.raises(InputError, match=r"'М_a' and 'В_a' would have files of the same name, a_2024-01-01"):
        read_pairs(_table(tmp_path, "subject,date,image", *lines))


def test_names_of_files_tell_subject_and_date(tmp_path: Path) -> None:
    for name in ("liver_7_2024-01-31.nii.gz", "liver_7_20240630.nii.gz"):
        _volume(tmp_path / "images" / name)
    scans = read_scans([tmp_path / "images"])
    assert [(scan.subject, scan.day.isoformat()) for scan in scans] == [
        ("liver_7", "2024-01-31"),
        ("liver_7", "2024-06-30"),
    ]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["subject,image", "a,a.nii.gz"], "no column date"),
        (["subject,date,image", "a,31.1.2024,a.nii.gz"], "line 2: a date must be written like 2024-01-31"),
        (["subject,date,image", "a,2023-02-29,a.nii.gz"], "got '2023-02-29'"),
        (["subject,date,image", "a,2024-01-01,gone.nii.gz"], "line 2: .*gone.nii.gz"),
        (["subject,date,image", "a,2024-01-01,a.nii.gz", "b,2024-01-02,a.nii.gz"], "every subject has a single scan"),
        (["subject,date,image", "a,2024-01-01,a.nii.gz", "a,2024-01-01,b.nii.gz"], "--test-retest:\n.*a, 2024-01-01"),
        (
            ["subject,date,image", "a b,2024-01-01,a.nii.gz", "a b,2024-01-02,b.nii.gz", "a/b,2024-01-01,a.nii.gz"],
            "'a b' and 'a/b' would have files of the same name",
        ),
    ],
)
def test_a_wrong_table_is_refused_with_the_reason(tmp_path: Path, lines: list[str], reason: str) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        _volume(tmp_path / name)
    with pytest.raises(InputError, match=reason):
        read_scans([_table(tmp_path, *lines)])


def test_an_undated_name_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"call it SUBJECT_2024-01-31\.nii\.gz, or give a CSV file"):
        read_scans([_volume(tmp_path / "ct.nii.gz")])
    with pytest.raises(InputError, match="give a CSV file"):
        read_scans([])
