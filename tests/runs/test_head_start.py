"""The process that prepares the slices of a volume while the imports go on."""

import os
from pathlib import Path

import pytest

from spleen.runs import head_start
from spleen.runs.head_start import slices_prepared_meanwhile
from tests._helpers.small_run import SmallCt, compose_config, small, small_ct

NEEDS_FORK = pytest.mark.skipif(not head_start._may_fork(), reason="needs Linux, two cores and no launcher")


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


def _config(tmp_path: Path, *overrides: str):
    return compose_config(*small(f"cache_dir={tmp_path / 'cache'}", "data.label_values=[3,4]", *overrides))


def _entries(tmp_path: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted((tmp_path / "cache" / "slices").rglob("*.npy"))}


@NEEDS_FORK
def test_the_slices_are_in_the_store_after_the_block_and_stay_as_they_are(ct: SmallCt, tmp_path: Path) -> None:
    config = _config(tmp_path, *ct.overrides)
    with slices_prepared_meanwhile(config):
        pass
    first = _entries(tmp_path)
    assert len(first) >= 3  # images, labels, reference
    with slices_prepared_meanwhile(config):
        pass
    assert _entries(tmp_path) == first


@NEEDS_FORK
def test_the_phantom_is_computed_there_too(tmp_path: Path) -> None:
    config = _config(tmp_path, "data=phantom", "data.matrix=32", "data.n_slices=16")
    with slices_prepared_meanwhile(config):
        pass
    assert list((tmp_path / "cache").rglob("*.nii*"))


@NEEDS_FORK
def test_a_fault_there_is_left_for_the_run_to_report(
    ct: SmallCt, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image at all")
    done = False
    with slices_prepared_meanwhile(_config(tmp_path, f"data.image={broken}", ct.overrides[1])):
        done = True
    assert done
    assert _entries(tmp_path) == {}
    assert capfd.readouterr() == ("", "")


@NEEDS_FORK
def test_an_error_in_the_block_is_raised_once_the_process_has_ended(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork, children = os.fork, []

    def noted() -> int:
        children.append(fork())
        return children[-1]

    monkeypatch.setattr(os, "fork", noted)
    with pytest.raises(RuntimeError, match="of the block"), slices_prepared_meanwhile(_config(tmp_path, *ct.overrides)):
        raise RuntimeError("of the block")
    assert _entries(tmp_path)
    (child,) = children
    with pytest.raises(ChildProcessError):  # it is gone, and has been waited for
        os.waitpid(child, os.WNOHANG)


def test_many_cases_are_prepared_by_the_run_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> int:
        raise AssertionError("forked")

    monkeypatch.setattr(os, "fork", forbidden)
    with slices_prepared_meanwhile(_config(tmp_path, "data=folder", "data.images=images", "data.labels=labels")):
        pass
