"""Text for pages that are shared: the folders of the machine are gone, everything else stays."""

from pathlib import Path

import pytest

from spleen.reporting.paths import without_folders


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot read /home/me/scans/image.nii.gz: not gzip", "cannot read …/image.nii.gz: not gzip"),
        ("'/data/a.nii' and '~/b/c.nii', or (/x)", "'…/a.nii' and '…/c.nii', or (…/x)"),
        ("data.root=/mnt/disk/Task04/", "data.root=…/Task04/"),
        (r"C:\Users\me\image.nii", "…/image.nii"),
        ("and/or 3/4, 1 / 2, outputs/run, <script>a</script>", "and/or 3/4, 1 / 2, outputs/run, <script>a</script>"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_of_an_absolute_path_the_last_name_stays(text: str, expected: str) -> None:
    assert without_folders(text) == expected


def test_paths_in_known_folders_become_relative_even_with_blanks(tmp_path: Path) -> None:
    study = tmp_path / "my study"
    text = f"{study}/run 1 is newer than {study}/run 2 in {study}"
    assert without_folders(text, [tmp_path, study]) == "run 1 is newer than run 2 in my study"
    assert without_folders("/ is the root", [Path("/")]) == "/ is the root"
