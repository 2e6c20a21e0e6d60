"""The cores that a process may use, also inside a container, and imports without Python's collector."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spleen.system.hardware import limit_threads
from spleen.system.process import usable_cores
from tests._helpers.small_run import REPOSITORY


def in_a_child(code: str, *before: str) -> str:
    """What a Python process prints that OMP_NUM_THREADS does not limit."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [*before, sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def quota(folder: Path, **files: str) -> None:
    """Write the files of a control group as Linux exposes them; two underscores in a name are a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


# Cores --------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux binds processes to cores")
def test_a_process_that_is_bound_to_one_core_uses_one_thread() -> None:
    code = (
        "import torch; from spleen.system.process import usable_cores; print(usable_cores(), torch.get_num_threads())"
    )
    core = min(os.sched_getaffinity(0))
    assert in_a_child(code, "taskset", "-c", str(core)) == "1 1"


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [("300000 100000", 3), ("150000 100000", 2), ("10000 100000", 1), ("9900000 100000", 8), ("max 100000", 8)],
)
def test_the_cpu_quota_of_a_container_limits_the_cores(
    tmp_path: Path, membership: Path, cpu_max: str, cores: int
) -> None:
    membership.write_text("0::/../kubepods/pod9\n")  # a path of the host: in a container the top folder has the quota
    quota(tmp_path, cpu__max=cpu_max)
    assert usable_cores(tmp_path, membership) == cores


@pytest.mark.usefixtures("eight_cores")
def test_the_tightest_quota_of_nested_groups_applies(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/slurm/job_7/step_0\n")
    quota(tmp_path / "slurm" / "job_7" / "step_0", cpu__max="max 100000")
    quota(tmp_path / "slurm" / "job_7", cpu__max="200000 50000")
    quota(tmp_path / "slurm", cpu__max="600000 100000")
    assert usable_cores(tmp_path, membership) == 4


@pytest.mark.usefixtures("eight_cores")
def test_cgroup_v1_has_the_quota_in_two_files(tmp_path: Path, membership: Path) -> None:
    membership.write_text("4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n")
    quota(tmp_path / "cpu" / "docker" / "abc", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    quota(tmp_path / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert usable_cores(tmp_path, membership) == 3


@pytest.mark.usefixtures("eight_cores")
def test_without_control_groups_every_core_counts_that_the_process_may_run_on(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, tmp_path / "missing") == 8


def test_threads_are_lowered_to_the_cores_but_never_raised() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for cores, threads in ((8, 3), (2, 2), (0, 1)):
            limit_threads(cores)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


# Imports ------------------------------------------------------------------------------------------------------------


def test_the_collector_runs_again_after_the_import_and_only_the_first_import_is_exempt_from_it() -> None:
    code = """
import gc, weakref
from spleen.system.process import collector_paused

class Loop:
    def __init__(self):
        self.itself = self

with collector_paused():
    import torch
    print(gc.isenabled())
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
frozen, loop = gc.get_freeze_count(), weakref.ref(Loop())
with collector_paused():
    import torch
gc.collect()
print(gc.get_freeze_count() == frozen, loop() is None)
"""
    assert in_a_child(code).split() == ["False", "True", "True", "True", "True"]
