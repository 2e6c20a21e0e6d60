"""Real offline runs, read back with wandb's own inspector, and the rules that choose the mode."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from spleen.errors import InputError
from spleen.runs.tracking.media import Overlay
from spleen.runs.tracking.mirror import WandbRun, start_wandb_run
from spleen.runs.tracking.mode import resolve_mode
from spleen.runs.tracking.settings import WandbSettings
from tests._helpers.wandb_runs import records_of

REPOSITORY = Path(__file__).resolve().parents[2]
KEY = "0123456789" * 4


def settings(**changes: object) -> WandbSettings:
    names = {"project": "organs", "name": "axial-96", "group": "study", "tags": ("a", "b")}
    return WandbSettings(**{**names, "mode": "offline", **changes})  # type: ignore[arg-type]


def records(run: WandbRun) -> list[dict]:
    """Every record of the run's log."""
    assert run.folder is not None
    (log,) = run.folder.glob("run-*.wandb")
    return records_of(log)


def of_type(run: WandbRun, name: str) -> list[dict]:
    return [record[name] for record in records(run) if record["type"] == name]


def history(run: WandbRun) -> list[dict]:
    """The logged rows, without wandb's own values and the time of each epoch."""
    return [
        {key: value for key, value in record["item"].items() if not key.startswith(("_", "time/"))}
        for record in of_type(run, "history")
    ]


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Remove all wandb settings and keys; return the empty home folder, also the working directory."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return home


def test_two_open_runs_stay_separate_and_contain_what_was_logged(tmp_path: Path) -> None:
    first = start_wandb_run(settings(), tmp_path / "job 0", {"lr": 1e-3, "model": {"width": 16}})
    second = start_wandb_run(settings(name="coronal-96", tags=()), tmp_path / "job 1", {"lr": 1e-4})
    for epoch in (1, 2):
        first.log_epoch({"val/dice": 0.25 * epoch, "train/loss": 0.75}, epoch - 1)
        second.log_epoch({"val/dice": -1.0}, epoch - 1)
    first.log_summary({"test/dice": 0.875})
    second.finish(1)
    second.finish(0)
    first.finish(0)

    assert first.folder is not None
    assert first.folder.parent == tmp_path / "job 0" / "wandb"
    assert history(first) == [
        {"epoch": 1, "val/dice": 0.25, "train/loss": 0.75},
        {"epoch": 2, "val/dice": 0.5, "train/loss": 0.75},
    ]
    assert history(second) == [{"epoch": 1, "val/dice": -1.0}, {"epoch": 2, "val/dice": -1.0}]
    (start,) = of_type(first, "run")
    assert (start["project"], start["display_name"], start["run_group"]) == ("organs", "axial-96", "study")
    assert start["tags"] == ["a", "b"]
    assert start["config"]["update"]["lr"] == 1e-3
    assert start["config"]["update"]["model"] == {"width": 16}
    assert [exit_["exit_code"] for exit_ in of_type(first, "exit")] == [0]
    assert [exit_["exit_code"] for exit_ in of_type(second, "exit")] == [1]
    assert any(record["update"].get("test/dice") == 0.875 for record in of_type(first, "summary"))


def test_tables_and_overlays_are_stored_in_the_files_of_the_run(tmp_path: Path) -> None:
    image = np.arange(35, dtype=np.uint8).reshape(5, 7)
    prediction = (image > 20).astype(np.uint8)
    reference = (image > 27).astype(np.uint8) * 2
    overlay = Overlay("worst", image, prediction, reference, {0: "background", 1: "spleen", 2: "liver"})
    run = start_wandb_run(settings(), tmp_path, {})
    run.log_table("test/cases", ["case_id", "dice"], [["a", 0.5], ["b", float("nan")], ["c", None]])
    run.log_overlays([overlay, overlay])
    run.finish()

    assert run.folder is not None
    media = run.folder / "files" / "media"
    (table,) = media.rglob("*.table.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["case_id", "dice"]
    assert content["data"][0] == ["a", 0.5]
    assert np.isnan(content["data"][1][1])
    assert content["data"][2] == ["c", None]
    logged = next(item for item in history(run) if "test/slices" in str(item))
    assert {"worst", "prediction", "reference"} <= set(re.findall(r"\w+", str(logged)))
    masks = [np.asarray(Image.open(path)) for path in media.rglob("*.mask.png")]
    assert any(np.array_equal(mask, prediction) for mask in masks)
    assert any(np.array_equal(mask, reference) for mask in masks)


def test_a_page_is_logged_as_it_is_and_its_absence_is_no_problem(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    page = tmp_path / "report.html"
    run = start_wandb_run(settings(), tmp_path, {})
    run.log_page(page)
    page.write_text("<!doctype html><title>µ</title>", encoding="utf-8")
    run.log_page(page)
    run.finish()

    assert run.folder is not None
    (logged,) = (run.folder / "files" / "media" / "html").iterdir()
    assert logged.read_text(encoding="utf-8") == "<!doctype html><title>µ</title>"
    assert "report._type" in str(of_type(run, "history"))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("changes", "best_is_last", "versions"),
    [
        ({}, False, {"best.ckpt": {"best", "latest"}}),
        ({}, True, {"best.ckpt": {"best", "last", "latest"}}),
        ({"upload_last_checkpoint": True}, True, {"last.ckpt": {"last", "latest"}, "best.ckpt": {"best", "latest"}}),
        ({"upload_checkpoint": False}, True, {}),
    ],
)
def test_a_checkpoint_is_a_version_of_the_model_with_its_description(
    tmp_path: Path, changes: dict[str, object], best_is_last: bool, versions: dict[str, set[str]]
) -> None:
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    best.write_bytes(b"weights")
    last.write_bytes(b"weights and state")
    run = start_wandb_run(settings(**changes), tmp_path, {})
    run.log_checkpoints(best, last, best_is_last, "unet for spleen", {"val_dice": 0.5, "model_spec": {"axis": "axial"}})
    run.finish()

    found = {}
    for artifact in of_type(run, "artifact"):
        (entry,) = artifact["manifest"]["contents"]  # the file itself, not a copy
        assert Path(entry["local_path"]) == tmp_path / entry["path"]
        assert (artifact["type"], artifact["description"]) == ("model", "unet for spleen")
        assert json.loads(artifact["metadata"]) == {"val_dice": 0.5, "model_spec": {"axis": "axial"}}
        found[entry["path"]] = set(artifact["aliases"])
    assert found == versions


def test_the_printed_commands_work(tmp_path: Path) -> None:
    run = start_wandb_run(settings(), tmp_path / "a b", {})
    run.log_epoch({"val/dice": 0.5}, 1)
    run.finish()

    sync, leet = (shlex.split(command) for command in run.view_instructions())
    assert sync[1:] == ["sync", str(run.folder)]
    assert leet[1:] == ["leet", str(run.folder)]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    dry = subprocess.run([*sync, "--dry-run"], capture_output=True, text=True, env=environment)
    assert "Would sync 1 run" in dry.stdout + dry.stderr
    # The same viewer, but with text output instead of a full-screen terminal.
    summary = [leet[0], "leet", "inspect", "--summary", "--json", leet[2]]
    shown = subprocess.run(summary, capture_output=True, text=True, env=environment, check=True).stdout
    assert json.loads(shown)["summary"]["val/dice"] == {"max": 0.5}


def test_disabled_mode_writes_nothing(tmp_path: Path) -> None:
    run = start_wandb_run(settings(mode="disabled"), tmp_path, {})
    run.log_epoch({"val/dice": 0.5}, 1)
    run.log_table("cases", ["case_id"], [["a"]])
    run.finish(1)
    assert run.folder is None
    assert run.view_instructions() == []
    assert list(tmp_path.iterdir()) == []


def test_unreachable_server_falls_back_to_offline(clean_environment: Path, tmp_path: Path) -> None:
    # A new process, because wandb reads its environment once. Port 9 of this machine refuses the connection.
    program = f"""
        import warnings
        from pathlib import Path
        from spleen.runs.tracking.settings import WandbSettings
from tests._helpers.wandb_runs import records_of
        from spleen.runs.tracking.mirror import start_wandb_run
        settings = WandbSettings("organs", "auto", "a", "g", init_timeout_seconds=1.0)
        with warnings.catch_warnings(record=True) as caught:
            run = start_wandb_run(settings, Path({str(tmp_path)!r}), {{}})
        run.finish()
        print(run.mode, run.folder.name.startswith("offline-run"), caught[0].message)
    """
    environment = os.environ | {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY}
    output = run_program(program, environment)
    assert output.startswith("offline True wandb could not start online (CommError")


def run_program(program: str, environment: dict[str, str], trace: tuple[str, ...] = ()) -> str:
    """Combined stdout and stderr of a new process, started in the home folder without a terminal."""
    command = [*trace, sys.executable, "-c", re.sub(r"^ {8}", "", program, flags=re.MULTILINE)]
    done = subprocess.run(
        command,
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_offline_run_is_silent_and_makes_no_connection(clean_environment: Path, tmp_path: Path) -> None:
    trace_file = tmp_path / "trace"
    trace = ("strace", "-f", "--seccomp-bpf", "-e", "trace=network", "-o", str(trace_file))
    if not shutil.which("strace") or subprocess.run([*trace, "true"], capture_output=True).returncode:
        pytest.skip("strace is missing, too old or not permitted here, so network calls cannot be watched")
    program = f"""
        from pathlib import Path
        from spleen.runs.tracking.settings import WandbSettings
from tests._helpers.wandb_runs import records_of
        from spleen.runs.tracking.mirror import start_wandb_run
        settings = WandbSettings("organs", "auto", "a", "g")
        for job in ("0", "1"):
            run = start_wandb_run(settings, Path({str(tmp_path)!r}) / job, {{"lr": 0.1}})
            run.log_epoch({{"val/dice": 0.5}}, 1)
            run.log_table("cases", ["case_id"], [["a"]])
            run.finish()
    """
    assert run_program(program, dict(os.environ), trace) == ""
    # Only the run folders are written to; the home folder contains only logs of wandb's own process.
    assert len(list(tmp_path.glob("[01]/wandb/offline-run-*/run-*.wandb"))) == 2
    assert {path.suffix for path in clean_environment.rglob("*") if path.is_file()} <= {".log"}
    traced = trace_file.read_text()
    assert "listen(" in traced  # only wandb's own process listens, so it was traced too
    calls = re.findall(r"\b(?:connect|send\w*)\(.*", traced)
    outside = [call for call in calls if "AF_INET" in call and not re.search(r'"(127\.|::1")', call)]
    assert outside == []


def test_importing_the_module_imports_neither_wandb_nor_torch(clean_environment: Path) -> None:
    program = "import sys, spleen.runs.tracking.mirror; print({'wandb', 'torch'} & set(sys.modules))"
    assert run_program(program, dict(os.environ)) == "set()\n"


def test_auto_is_offline_without_a_key_and_online_mode_needs_one(clean_environment: Path) -> None:
    assert resolve_mode("auto") == "offline"
    assert resolve_mode("disabled") == "disabled"
    with pytest.raises(InputError, match=r"logger\.mode=online needs a wandb API key .*wandb login"):
        resolve_mode("online")


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_auto_is_online_with_a_key_in_the_environment(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, KEY)
    assert resolve_mode("auto") == "online"
    assert resolve_mode("online") == "online"
    assert resolve_mode("offline") == "offline"


def test_wandb_mode_in_the_environment_applies_to_auto_only(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(InputError, match=r"^WANDB_MODE=online needs"):
        resolve_mode("auto")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert resolve_mode("auto") == "offline"
    assert resolve_mode("online") == "online"  # the command line takes precedence over the environment
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_mode("auto") == "disabled"
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.raises(InputError, match="got 'onlin'"):
        resolve_mode("auto")


@pytest.mark.parametrize("host", ["api.forge.coreweave.com", "api.wandb.ai", "wandb.example:8080", None])
@pytest.mark.parametrize("base_url", [None, "https://wandb.example:8080"])
def test_a_netrc_entry_counts_only_for_the_configured_server_as_in_wandb(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch, host: str | None, base_url: str | None
) -> None:
    from wandb.sdk.lib.wbauth import read_netrc_auth

    other = f"machine other.example login user password {KEY}\n"
    entry = f"machine {host} login user password {KEY}\n" if host else ""
    (clean_environment / ".netrc").write_text(other + entry)
    if base_url:
        monkeypatch.setenv("WANDB_BASE_URL", base_url)
    found = read_netrc_auth(host=base_url or "https://api.forge.coreweave.com") is not None
    assert resolve_mode("auto") == ("online" if found else "offline")
    assert found == (host is not None and (host == "wandb.example:8080") == bool(base_url))


def test_netrc_may_be_elsewhere_and_invalid_or_default_entries_are_ignored(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = clean_environment / "keys"
    monkeypatch.setenv("NETRC", str(elsewhere))
    assert resolve_mode("auto") == "offline"
    elsewhere.write_text("default login anonymous password mail@example.org\n")
    assert resolve_mode("auto") == "offline"
    elsewhere.write_text("machine without end of a sentence")
    assert resolve_mode("auto") == "offline"
    elsewhere.write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert resolve_mode("auto") == "online"


def test_the_settings_file_of_wandb_is_respected(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = clean_environment / ".config" / "wandb" / "settings"
    stored.parent.mkdir(parents=True)
    (clean_environment / ".netrc").write_text(f"machine wandb.clinic.example login user password {KEY}\n")
    stored.write_text("[default]\nbase_url = https://wandb.clinic.example\n")
    assert resolve_mode("auto") == "online"
    stored.write_text("[default]\nbase_url = https://wandb.clinic.example\nmode = offline\n")
    assert resolve_mode("auto") == "offline"
    stored.write_text("neither section nor value")
    assert resolve_mode("auto") == "offline"


@pytest.mark.parametrize(("name", "mode"), [("wandb", "auto"), ("none", "disabled")])
def test_shipped_settings_contain_every_value_with_a_comment(name: str, mode: str) -> None:
    text = (REPOSITORY / "conf" / "logger" / f"{name}.yaml").read_text()
    values = yaml.safe_load(text)
    assert set(values) == set(WandbSettings.__dataclass_fields__)
    assert all("#" in line for line in text.splitlines())
    assert WandbSettings(**{**values, "name": "n", "group": "g", "tags": ()}).mode == mode
