"""Runs that are killed and resumed, compared bit for bit with an uninterrupted one."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import spleen.runs.report.write
import spleen.training.checkpoints
import spleen.training.module
from spleen.errors import FolderInUse, InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.intensity import CtWindow
from spleen.imaging.preprocessing import Preprocessing
from spleen.models.spec import ModelSpec
from spleen.runs.main import record_failure
from spleen.runs.resume import Unfinished, check_same_data, check_same_settings
from spleen.runs.resume_command import read_resumed
from spleen.system.locks import folder_lock
from spleen.training.checkpoints import WholeCheckpoints
from spleen.training.scores import SplitScores
from tests._helpers.small_run import REPOSITORY, SmallCt, rows, small, small_ct, summary, train

# Everything stateful: dropout, augmentation, averaged weights, a schedule, and validation every other epoch.
SETTINGS = (
    "data.label_values=[3,4]", "epochs=4", "loader.slices_per_epoch=16", "model.network.dropout=0.2", "augment=light",
    "optimiser.ema_decay=0.9", "schedule=cosine", "trainer.val_every_epochs=2", "trainer.early_stopping_patience=9",
)  # fmt: skip


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


class Killed(BaseException):
    """Simulates a kill of the process at the line where it is raised."""


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def uninterrupted(ct: SmallCt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("uninterrupted"), *ct.overrides, *SETTINGS)


def assert_same(run_folder: Path, expected: Path) -> None:
    """The record and every tensor of the checkpoints are the same, bit for bit."""
    for name in ("metrics.csv", "cases.csv", "split.json"):
        assert (run_folder / name).read_bytes() == (expected / name).read_bytes(), name
    for name in ("best.ckpt", "last.ckpt"):
        found, wanted = (
            torch.load(folder / "checkpoints" / name, weights_only=True) for folder in (run_folder, expected)
        )
        assert (found["epoch"], found["global_step"]) == (wanted["epoch"], wanted["global_step"])
        for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
            torch.testing.assert_close(found.get(part), wanted.get(part), rtol=0, atol=0)
    assert summary(run_folder)["test"] == summary(expected)["test"]


def kill_at_call(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, number: int) -> None:
    """Make call `number` (from 1) of a function raise Killed; earlier calls run normally."""
    calls = 0
    function: Callable[..., object] = getattr(owner, name)

    def counted(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            raise Killed
        return function(*arguments, **named)

    monkeypatch.setattr(owner, name, counted)


# An epoch has 4 steps. Each row: where the process is killed, the call, and how many epochs are saved by then.
KILLS = [
    ("in the first epoch", spleen.training.module, "augment_batch", 3, 0),
    ("before the first checkpoint is written", WholeCheckpoints, "save_checkpoint", 1, 0),
    ("during validation", SplitScores, "add", 1, 1),
    ("in a training step after it", spleen.training.module, "augment_batch", 5, 2),
    ("after last.ckpt is written and before best.ckpt", spleen.training.checkpoints, "write_best", 1, 4),
    ("while the best checkpoint is scored", spleen.training.module, "slice_dice", 1, 4),
    ("while the figures are drawn", spleen.runs.report.write, "draw", 1, 4),
]


def saved_epochs(run_folder: Path) -> int:
    last = run_folder / "checkpoints" / "last.ckpt"
    return len(torch.load(last, weights_only=True)["callbacks"]["EpochRecord"]["rows"]) if last.exists() else 0


@pytest.mark.slow
def test_a_run_killed_at_every_stage_ends_like_an_uninterrupted_one(
    ct: SmallCt, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder = tmp_path / "outputs" / "small" / "now"
    for _, owner, name, number, epochs in KILLS:
        with monkeypatch.context() as patch:
            kill_at_call(patch, owner, name, number)
            with pytest.raises(Killed):
                train(tmp_path, *ct.overrides, *SETTINGS)
        assert saved_epochs(run_folder) == epochs
        assert not (run_folder / "summary.json").exists()
    train(tmp_path, *ct.overrides, *SETTINGS)
    assert_same(run_folder, uninterrupted)
    assert summary(run_folder)["resumed"] == 3  # earlier processes that saved epochs: 1, 1 and 2 of them
    assert summary(uninterrupted)["resumed"] == 0


@pytest.mark.slow
def test_20_kills_at_random_times_do_not_change_the_result(ct: SmallCt, tmp_path: Path) -> None:
    """Real processes and SIGKILL, anywhere from before the first step after a resume to between two checkpoints."""
    settings = small(
        *ct.overrides,
        *SETTINGS,
        "epochs=300",
        "trainer.early_stopping_patience=null",
        "study=small",
        f"cache_dir={tmp_path / 'cache'}",
    )
    start = [sys.executable, str(REPOSITORY / "train.py"), *settings]
    folders = [tmp_path / name for name in ("uninterrupted", "killed")]
    subprocess.run([*start, f"output_dir={folders[0]}", f"hydra.run.dir={folders[0]}/run"], check=True, env=ONE_THREAD)
    random, killed = np.random.default_rng(0), folders[1] / "run"
    command = [*start, f"output_dir={folders[1]}", f"hydra.run.dir={killed}"]
    for _ in range(20):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ONE_THREAD)
        while not (killed / "checkpoints" / "last.ckpt").exists():
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(float(random.uniform(0, 5)))
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors.decode()
        command = [sys.executable, str(REPOSITORY / "train.py"), f"resume={killed}"]
    subprocess.run(command, check=True, env=ONE_THREAD)
    assert_same(killed, folders[0] / "run")


def interrupted_after(
    epochs: int, folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str, name: str = "now"
) -> Path:
    """The run folder of a training that was killed in the first step after `epochs` epochs of 4 steps."""
    with monkeypatch.context() as patch:
        kill_at_call(patch, spleen.training.module, "augment_batch", 4 * epochs + 1)
        with pytest.raises(Killed):
            train(folder, *overrides, name=name)
    return folder / "outputs" / "small" / name


def test_worker_processes_fetch_the_batches_of_the_resumed_epoch(
    ct: SmallCt, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Workers prefetch as soon as they start. Their number may change on resume, because it affects nothing else.
    run_folder = interrupted_after(2, tmp_path, monkeypatch, *ct.overrides, *SETTINGS)
    train(tmp_path, *ct.overrides, *SETTINGS, "loader.num_workers=2")
    assert_same(run_folder, uninterrupted)


def test_a_run_folder_can_be_moved_before_it_is_resumed(
    ct: SmallCt, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder = interrupted_after(3, tmp_path, monkeypatch, *ct.overrides, *SETTINGS)
    moved = tmp_path / "elsewhere" / "outputs" / "small" / "moved"
    moved.parent.mkdir(parents=True)
    run_folder.rename(moved)
    # As after a copy to another file system, the best checkpoint is a separate file.
    best = moved / "checkpoints" / "best.ckpt"
    content = best.read_bytes()
    best.unlink()
    best.write_bytes(content)
    train(tmp_path / "elsewhere", *ct.overrides, *SETTINGS, name="moved")
    assert_same(moved, uninterrupted)
    assert not run_folder.exists()


def test_the_early_stopping_state_is_resumed(ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No weight changes at this learning rate, and instance normalisation has no running statistics that could.
    settings = (
        *ct.overrides, "data.label_values=[3,4]", "lr=1e-12", "epochs=9", "loader.slices_per_epoch=16",
        "model.network.norm=instance", "trainer.early_stopping_patience=2",
    )  # fmt: skip
    expected = train(tmp_path, *settings, name="uninterrupted")
    run_folder = interrupted_after(2, tmp_path, monkeypatch, *settings)
    with monkeypatch.context() as patch:  # after the training has stopped
        kill_at_call(patch, spleen.training.module, "slice_dice", 1)
        with pytest.raises(Killed):
            train(tmp_path, *settings)
    train(tmp_path, *settings)
    assert_same(run_folder, expected)
    assert len(rows(run_folder / "metrics.csv")) == 3  # the best epoch and two without improvement


def test_time_and_throughput_cover_all_parts_of_a_resumed_run(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder = interrupted_after(3, tmp_path, monkeypatch, *ct.overrides, *SETTINGS)
    last = run_folder / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["callbacks"]["Clock"] |= {"wall_seconds": 1000.0, "slices": 7000, "seconds": 100.0}
    torch.save(content, last)
    train(tmp_path, *ct.overrides, *SETTINGS)
    record = summary(run_folder)
    assert 1000 < record["wall_seconds"] < 1100
    # The last part trains 16 slices, not counting its first batch of 4: 7012 slices in a little over 100 s.
    assert 60 < record["train"]["slices_per_second"] < 70.12
    assert record["train"]["epochs"] == 4


def test_a_finished_run_is_not_continued(ct: SmallCt, tmp_path: Path) -> None:
    settings = (*ct.overrides, "data.label_values=[3,4]", "epochs=1", "loader.slices_per_epoch=16")
    run_folder = train(tmp_path, *settings)
    (run_folder / "checkpoints" / "last.ckpt").write_bytes(b"never read")
    train(tmp_path, *settings, "seed=1")
    assert summary(run_folder)["seed"] == 1
    assert summary(run_folder)["resumed"] == 0


def test_an_unfinished_run_resumes_only_with_the_same_settings_and_label(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder = interrupted_after(1, tmp_path, monkeypatch, *ct.overrides, *SETTINGS)
    recorded = (run_folder / "config.yaml").read_text()
    with pytest.raises(InputError, match=r"lr was 0\.03 and is now 0\.001.*resume="):
        train(tmp_path, *ct.overrides, *SETTINGS, "lr=1e-3")
    moved = small_ct(tmp_path)
    label = nibabel.load(moved.label)
    values = np.asanyarray(label.dataobj).copy()
    values[:12] = 0
    nibabel.save(nibabel.Nifti1Image(values, label.affine), moved.label)
    with pytest.raises(InputError, match="the images or labels are not those"):
        train(tmp_path, *moved.overrides, *SETTINGS, "data.label_values=[3,4]")
    assert (run_folder / "config.yaml").read_text() == recorded


def test_an_unfinished_run_resumes_only_with_the_same_image(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_after(1, tmp_path, monkeypatch, *ct.overrides, *SETTINGS)
    brighter = nibabel.load(ct.image)
    nibabel.save(nibabel.Nifti1Image(brighter.get_fdata() + 1, brighter.affine), tmp_path / ct.image.name)
    overrides = [override.replace(str(ct.image), str(tmp_path / ct.image.name)) for override in ct.overrides]
    with pytest.raises(InputError, match="the images or labels are not those"):
        train(tmp_path, *overrides, *SETTINGS)


def test_a_run_from_before_images_were_recorded_can_be_resumed(tmp_path: Path) -> None:
    classes = ClassMap(("organ",), ((1,),))
    preprocessing = Preprocessing("axial", 32, "keep_aspect", 4, CtWindow(50.0, 400.0), classes, 0.1)
    spec = ModelSpec({}, preprocessing, 0, None, "32", (), ((2.0, 3.0),), ("hash",))
    last = tmp_path / "checkpoints" / "last.ckpt"
    check_same_data(Unfinished(last, 1, {}, replace(spec, seen_images=())), spec)
    others = replace(preprocessing, classes=ClassMap(("organ",), ((2,),)))
    for then in (replace(spec, seen_images=("other",)), replace(spec, preprocessing=others)):
        with pytest.raises(InputError, match="the images or labels are not those"):
            check_same_data(Unfinished(last, 1, {}, then), spec)


def test_a_setting_that_a_group_leaves_to_its_default_is_no_other_setting(tmp_path: Path) -> None:
    """augment.voxel_depth, which runs of earlier versions and groups of one's own do not have."""
    preprocessing = Preprocessing("axial", 32, "keep_aspect", 4, CtWindow(50.0, 400.0), ClassMap(("a",), ((1,),)), 0.1)
    spec = ModelSpec({}, preprocessing, 0, None, "32", (), ((2.0, 3.0),), ("hash",))
    settings = {"lr": 0.1, "augment": {"flips": []}}
    unfinished = Unfinished(tmp_path / "run" / "checkpoints" / "last.ckpt", 1, settings, spec)
    check_same_settings(unfinished, settings)
    check_same_settings(unfinished, {"lr": 0.1, "augment": {"flips": [], "voxel_depth": "auto"}})
    with pytest.raises(InputError, match=r'voxel_depth was "auto" and is now 2\.0'):
        check_same_settings(unfinished, {"lr": 0.1, "augment": {"flips": [], "voxel_depth": 2.0}})


def test_a_run_that_is_resumed_on_other_hardware_is_the_job_that_it_began_as(
    ct: SmallCt, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder = interrupted_after(1, tmp_path, monkeypatch, *ct.overrides, *SETTINGS)
    train(tmp_path, *ct.overrides, *SETTINGS, "trainer.accelerator=cpu")
    assert summary(run_folder)["identity"] == summary(uninterrupted)["identity"] is not None


def test_a_pruned_run_is_not_resumed(tmp_path: Path) -> None:
    """Resuming it would begin with removing its record."""
    (tmp_path / "config.yaml").touch()
    (tmp_path / "summary.json").write_text('{"status": "pruned"}')
    with pytest.raises(InputError, match="was pruned: its search stopped it"):
        read_resumed([f"resume={tmp_path}"])


def test_a_failure_is_told_also_where_it_cannot_be_recorded(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = tmp_path / "file" / "run"
    assert record_failure(InputError("the disk is full"), nowhere) == ("the disk is full", 2)
    message, exit_code = record_failure(ValueError("what"), nowhere)
    assert (message, exit_code) == ("ValueError: what\nThis is a bug; debug=true shows the traceback", 1)


class _Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_that_contains_code_or_is_damaged_is_refused(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder = interrupted_after(3, tmp_path, monkeypatch, *ct.overrides, *SETTINGS)
    last = run_folder / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    with last.open("wb") as file:
        torch.save({"callbacks": _Trap(tmp_path / "caught")}, file)
    with pytest.raises(InputError, match=r"tensors and plain values only.*remove it to start the run from scratch"):
        train(tmp_path, *ct.overrides, *SETTINGS)
    last.write_bytes(pickle.dumps(_Trap(tmp_path / "caught")))
    with pytest.raises(InputError, match=r"last\.ckpt"):
        train(tmp_path, *ct.overrides, *SETTINGS)
    assert not (tmp_path / "caught").exists()
    last.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"truncated.*remove it to start the run from scratch"):
        train(tmp_path, *ct.overrides, *SETTINGS)
    torch.save({"weights": torch.zeros(3)}, last)
    with pytest.raises(InputError, match=r"lacks the weights.*remove it to start the run from scratch"):
        train(tmp_path, *ct.overrides, *SETTINGS)
    torch.save({"state_dict": {}}, last)
    with pytest.raises(InputError, match="no training state"):
        train(tmp_path, *ct.overrides, *SETTINGS)
    last.write_bytes(content)
    last.with_name("best.ckpt").unlink()
    with pytest.raises(InputError, match=r"best\.ckpt is missing"):
        train(tmp_path, *ct.overrides, *SETTINGS)


def test_only_one_process_uses_a_folder_and_leftovers_of_killed_ones_are_removed(tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    program = f"""
import sys
from pathlib import Path
from spleen.system.locks import folder_lock
from spleen.imaging.classes import ClassMap
with folder_lock(Path({str(run_folder)!r})):
    print("claimed", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "claimed\n"
    leftover = run_folder / "checkpoints" / ".tmp-1-abcdef01-last.ckpt"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    with pytest.raises(FolderInUse, match="another process is using"), folder_lock(run_folder, timeout_seconds=0.1):
        pass
    assert leftover.exists()  # it may belong to the other process
    other.kill()
    other.wait()
    with folder_lock(run_folder):
        assert not leftover.exists()
