"""`spleen sync` as a user runs it on real offline runs: with a local server, an unreachable one, and without a key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spleen.runs.tracking.mirror import start_wandb_run
from spleen.runs.tracking.sync import find_offline_runs
from spleen.system.locks import folder_lock
from tests._helpers.wandb_server import WandbServer
from tests.runs.test_tracking_mirror import KEY, REPOSITORY, settings

UNREACHABLE_SERVER = "http://127.0.0.1:9"  # the discard port, refused at once


def spleen_sync(home: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
    return subprocess.run(
        [sys.executable, "-c", "from spleen.cli.main import main; main()", "sync", *map(str, arguments)],
        env={**clean, "HOME": str(home), "PYTHONPATH": str(REPOSITORY), "COLUMNS": "120", **environment},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def offline_run(run_folder: Path, epochs: int) -> None:
    run_folder.mkdir(parents=True)
    run = start_wandb_run(settings(), run_folder, {"lr": 0.5})
    for epoch in range(epochs):
        run.log_epoch({"val/dice": epoch / 10}, epoch)
    run.finish()


def uploaded_runs(folder: Path) -> list[str]:
    return sorted(run.run_folder.name for run in find_offline_runs([folder]) if run.is_uploaded)


def test_a_study_is_uploaded_once_except_for_a_run_in_progress(home: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    for name, epochs in (("a", 2), ("b", 3), ("c", 1)):
        offline_run(study / name, epochs)
    with WandbServer().serving() as server:
        online = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        with folder_lock(study / "c"):
            first = spleen_sync(home, study, **online)
        assert first.returncode == 0, first.stderr
        assert f"skipped, a training is running there: {study / 'c'}" in first.stdout
        assert uploaded_runs(study) == ["a", "b"]
        run_ids = {(run.run_folder.name): run.log.stem.removeprefix("run-") for run in find_offline_runs([study])}
        assert set(server.runs) == {run_ids["a"], run_ids["b"]}
        sent = sorted(server.runs[run_ids["b"]].history.items())
        assert [(row["epoch"], row["val/dice"]) for _, row in sent] == [(1, 0.0), (2, 0.1), (3, 0.2)]
        assert f"{server.url}/team/organs/runs/{run_ids['a']}" in first.stdout

        second = spleen_sync(home, study / "a", study / "c", **online)
        assert "uploading 1 offline run(s)" in second.stdout
        assert set(server.runs) == set(run_ids.values())
    third = spleen_sync(home, study)
    assert third.returncode == 0
    assert "nothing to upload: all 3 offline runs are uploaded already" in third.stdout


def test_a_folder_that_was_moved_loses_its_checkpoint_but_no_score(home: Path, tmp_path: Path) -> None:
    there, moved = tmp_path / "there", tmp_path / "moved"
    there.mkdir()
    run = start_wandb_run(settings(), there, {"lr": 0.5})
    run.log_epoch({"val/dice": 0.25}, 0)
    (there / "best.ckpt").write_bytes(b"weights")
    run.log_checkpoints(there / "best.ckpt", there / "last.ckpt", True, "unet for spleen", {"val_dice": 0.25})
    run.finish()
    there.rename(moved)
    with WandbServer().serving() as server:
        done = spleen_sync(home, moved, WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    (uploaded,) = server.runs.values()
    assert [row["val/dice"] for row in uploaded.history.values()] == [0.25]
    (artifact,) = server.artifacts
    assert {alias["alias"] for alias in artifact["aliases"]} == {"best", "last", "latest"}
    assert artifact["description"] == "unet for spleen"


def test_an_unreachable_server_is_reported_and_nothing_is_marked_as_uploaded(home: Path, tmp_path: Path) -> None:
    offline_run(tmp_path / "study" / "a", 1)
    done = spleen_sync(
        home, tmp_path / "study", WANDB_BASE_URL=UNREACHABLE_SERVER, WANDB_API_KEY=KEY, WANDB_X_GRAPHQL_RETRY_MAX="1"
    )
    assert done.returncode == 1
    assert "1 of 1 could not be uploaded" in done.stderr
    assert "connection refused" in done.stderr
    assert uploaded_runs(tmp_path / "study") == []


def test_a_missing_key_is_reported_with_instructions(home: Path, tmp_path: Path) -> None:
    offline_run(tmp_path / "a", 1)
    done = spleen_sync(home, tmp_path / "a")
    assert done.returncode == 2
    assert "wandb login" in done.stderr
    assert "WANDB_API_KEY" in done.stderr
    assert uploaded_runs(tmp_path) == []


@pytest.mark.parametrize(
    ("exists", "exit_code", "message"), [(True, 0, "there is no offline wandb run"), (False, 2, "no such folder")]
)
def test_nothing_to_upload_is_reported(home: Path, exists: bool, exit_code: int, message: str) -> None:
    folder = home / "runs"
    if exists:
        folder.mkdir()
    done = spleen_sync(home, folder)
    assert done.returncode == exit_code
    assert message in done.stdout + done.stderr
