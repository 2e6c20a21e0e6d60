"""Paths on the command line are taken literally, whatever characters they contain."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from spleen.config.overrides import with_absolute_path, with_literal_path


def read(override: str, sweep: bool = False) -> list[object]:
    """The values that Hydra parses from an override."""
    parsed = OverridesParser.create().parse_override(with_literal_path(override, sweep))
    if parsed.is_sweep_override():
        return [text.strip("'") for text in parsed.sweep_string_iterator()]
    return [parsed.value()]


@pytest.mark.parametrize(
    "path",
    [
        "ct.nii.gz", "scan (1).nii.gz", "a=b.nii", "[1]/ct.nii", "#7/ct.nii", "it's.nii", "é/ct.nii", "a,b.nii",
        "{x}/y.nii", "say \"a\".nii", "C:\\new folder\\ct.nii", "007", "true", "choice(a,b)", " ct.nii", "100%.nii",
        "a:b",
        "扫描.nii", "a;b&c.nii", "$HOME/ct.nii", "ct (1)/it's [a=b], #2.nii",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["data.image", "+data.image", "output_dir", "split.splits_file"])
def test_a_path_is_taken_literally(key: str, path: str) -> None:
    assert read(f"{key}={path}") == [path]


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me (1)"))
    assert read("data.root=~/data") == [f"{tmp_path / 'me (1)'}/data"]
    assert read("data.root=~/a,~/b", sweep=True) == [f"{tmp_path / 'me (1)'}/a", f"{tmp_path / 'me (1)'}/b"]


@pytest.mark.parametrize(
    "override", ["data.image='a b.nii'", "data.groups=null", "data.image=${x}/a.nii", "lr=0.1e", "study=a b", "~data"]
)
def test_quoted_values_and_non_paths_are_unchanged(override: str) -> None:
    assert with_literal_path(override, sweep=False) == override


def test_in_a_sweep_commas_and_choice_give_several_paths(tmp_path: Path) -> None:
    assert read("data.image=a.nii,b.nii", sweep=True) == ["a.nii", "b.nii"]
    assert read("data.image=choice(a.nii,b.nii)", sweep=True) == ["a.nii", "b.nii"]
    assert read("data.image=scan (1).nii,'scan (2).nii'", sweep=True) == ["scan (1).nii", "scan (2).nii"]
    both = tmp_path / "a,b (1).nii"
    both.touch()
    assert read(f"data.image={both}", sweep=True) == [str(both)]


@pytest.mark.parametrize("path", ["ct.nii.gz", "scans (1)/a=b.nii", "it's.nii", "007", "/elsewhere/ct.nii", "../a.nii"])
def test_an_absolute_path_is_that_of_the_current_folder(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    override = with_absolute_path(with_literal_path(f"data.image={path}", sweep=False))
    assert OverridesParser.create().parse_override(override).value() == str(tmp_path / path)


def test_a_run_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "latest").symlink_to("run")
    assert with_absolute_path(f"init_from={tmp_path / 'latest'}") == f"init_from={tmp_path / 'run'}"


@pytest.mark.parametrize(
    "override", ["data.groups=null", "data.image=${x}/a.nii", "data.image=a.nii,b.nii", "lr=0.1", "study=a", "~data"]
)
def test_what_is_no_path_stays_as_it_is(override: str) -> None:
    assert with_absolute_path(override) == override
