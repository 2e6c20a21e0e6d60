"""`spleen dashboard`: what it takes from run folders, and what a server on this machine gets."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spleen.errors import InputError
from spleen.runs.dashboard.plan import Axis, config_key, dashboard_of
from tests._helpers.run_folders import write_run
from tests._helpers.wandb_reports import ReportServer
from tests.runs.test_tracking_mirror import KEY, REPOSITORY

HIDE = "import sys; sys.modules['wandb_workspaces'] = None\n"
LOGGER = {"logger__project": "organs", "logger__mode": "offline"}


def mirrored(folder: Path, **settings: object) -> Path:
    """A finished run that was copied to wandb."""
    write_run(folder, **{**LOGGER, **settings})  # type: ignore[arg-type]
    (folder / "wandb").mkdir()
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two sizes by two rates in a study, and a run that was not copied."""
    folder = tmp_path / "size_and_rate"
    for size in (64, 128):
        for lr in (1e-3, 1e-2):
            mirrored(
                folder / f"img_size={size},lr={lr}-0123abc{size % 10}", study="size_and_rate", img_size=size, lr=lr
            )
    write_run(folder / "not copied", study="size_and_rate", axis="coronal")
    return folder


def test_the_axes_are_the_settings_that_differ(study: Path) -> None:
    dashboard = dashboard_of(str(study))
    assert dashboard.axes == (Axis("lr", True, True), Axis("img_size", True, False))
    assert (dashboard.entity, dashboard.project, dashboard.groups) == (None, "organs", ("size_and_rate",))
    assert dashboard.title == "size_and_rate: 4 runs"


def test_a_sweep_outside_of_a_study_is_found_by_its_own_group(tmp_path: Path) -> None:
    sweep = tmp_path / "train" / "2026-11-28_08-52-33-123"
    for width in (8, 16):
        mirrored(sweep / f"model.network.width={width}", study="train", model__network__width=width)
    dashboard = dashboard_of(str(tmp_path / "train"))
    assert dashboard.groups == ("train 2026-11-28_08-52-33-123",)
    assert dashboard.axes == (Axis("settings.model.network.width", True, False),)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("lr", "lr"),
        ("model.name", "model"),
        ("augment.noise_std", "augment"),
        ("loss._target_", "loss"),
        ("optimiser.weight_decay", "settings.optimiser.weight_decay"),
        ("split.guard_mm", "settings.split.guard_mm"),
    ],
)
def test_where_a_setting_is_in_the_configuration_on_the_dashboard(key: str, expected: str) -> None:
    assert config_key(key) == expected


def test_a_project_has_the_usual_axes_and_all_of_its_runs() -> None:
    dashboard = dashboard_of("team/organs")
    assert (dashboard.entity, dashboard.project, dashboard.groups) == ("team", "organs", ())
    assert [axis.key for axis in dashboard.axes] == ["axis", "img_size", "lr", "model", "augment", "loss"]
    assert dashboard_of("organs").entity is None


def test_what_is_no_study_of_one_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder of runs, and not a wandb project"):
        dashboard_of("outputs/deep/folder")
    write_run(tmp_path / "a" / "run")
    with pytest.raises(InputError, match="contains no run that was copied to wandb; train with logger=wandb"):
        dashboard_of(str(tmp_path / "a"))
    mirrored(tmp_path / "b" / "one")
    mirrored(tmp_path / "b" / "two", logger__project="others", logger__entity="team")
    with pytest.raises(InputError, match=r"several wandb projects \(organs, team/others\)"):
        dashboard_of(str(tmp_path / "b"))


def spleen_dashboard(target: object, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
    return subprocess.run(
        [sys.executable, "-c", f"{before}from spleen.cli.main import main; main()", "dashboard", str(target)],
        env={**clean, "HOME": "/nonexistent", "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def panels(report: dict[str, Any]) -> list[dict[str, Any]]:
    grids = [block["metadata"] for block in report["spec"]["blocks"] if block["type"] == "panel-grid"]
    return [panel for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]]


@pytest.mark.slow
def test_the_server_gets_a_report_of_the_study_with_parallel_coordinates_maps_and_curves(study: Path) -> None:
    server = ReportServer()
    with server.serving():
        done = spleen_dashboard(study, WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(
        rf"^saved: {server.url}/team/organs/reports/size_and_rate\S*--Vmlldzox$", done.stdout, re.MULTILINE
    )
    (report,) = server.reports
    assert (report["entityName"], report["projectName"], report["type"]) == ("team", "organs", "runs")
    assert report["displayName"] == "size_and_rate: 4 runs"
    kinds = [panel["viewType"] for panel in panels(report)]
    assert {"Parallel Coordinates Plot", "Scatter Plot", "Bar Chart", "Parameter Importance", "Run Comparer",
            "Run History Line Plot", "Media Browser"} == set(kinds)  # fmt: skip
    (parallel,) = (panel["config"] for panel in panels(report) if panel["viewType"] == "Parallel Coordinates Plot")
    assert [(column["accessor"], column.get("log")) for column in parallel["columns"]] == [
        ("config:lr.value", True), ("config:img_size.value", False),
        ("summary:val/dice.max", None), ("summary:test/dice", None),
    ]  # fmt: skip
    (scatter,) = (panel["config"] for panel in panels(report) if panel["viewType"] == "Scatter Plot")
    places = [scatter[name] for name in ("xAxis", "yAxis", "zAxis")]
    assert places == ["config:lr.value", "config:img_size.value", "summary:test/dice"]
    curves = [panel["config"] for panel in panels(report) if panel["viewType"] == "Run History Line Plot"]
    assert {curve["xAxis"] for curve in curves} == {"epoch"}
    runs = [grid["metadata"]["runSets"][0] for grid in report["spec"]["blocks"] if grid["type"] == "panel-grid"]
    (condition,) = runs[0]["filters"]["filters"]
    assert (condition["key"]["name"], condition["op"], condition["value"]) == ("group", "IN", ["size_and_rate"])


@pytest.mark.slow
def test_a_project_that_the_server_does_not_have_is_not_made(tmp_path: Path) -> None:
    server = ReportServer()
    with server.serving():
        done = spleen_dashboard("team/organ", WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    assert done.returncode == 2
    assert "'team/organ' not found" in done.stderr
    assert "Traceback" not in done.stderr
    assert server.reports == []


@pytest.mark.slow
def test_without_a_key_a_server_or_the_package_it_says_what_to_do(study: Path) -> None:
    without_key = spleen_dashboard(study)
    without_server = spleen_dashboard(
        study, WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY=KEY, WANDB_X_GRAPHQL_RETRY_MAX="1"
    )
    without_package = spleen_dashboard(study, before=HIDE)
    for done, told in (
        (without_key, "Run `wandb login` once, or set WANDB_API_KEY"),
        (without_server, "the dashboard could not be saved at http://127.0.0.1:9"),
        (without_package, "pip install 'spleen[dashboard]'"),
    ):
        assert (done.returncode, done.stdout) == (2, "")
        assert told in done.stderr
        assert "Traceback" not in done.stderr
