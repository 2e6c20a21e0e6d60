"""Old names of configuration keys: everywhere they are accepted, and what must not change with them."""

import json
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from spleen.config.identity import settings_with_effect
from spleen.config.parsing import parse
from spleen.config.schema import TrainConfig
from spleen.errors import InputError
from spleen.models.spec import ModelSpec
from spleen.records.renamed_keys import RENAMED_KEYS
from spleen.runs.main import as_understood
from spleen.runs.results.results import results
from spleen.runs.resume import Unfinished, check_same_settings
from spleen.runs.resume_command import read_resumed
from spleen.runs.sweeps import studies
from spleen.runs.sweeps.plan import combinations
from spleen.runs.sweeps.studies import read_study
from tests._helpers.run_folders import write_run
from tests._helpers.small_run import REPOSITORY, compose_config
from tests.system.test_train_command import run_train

OLD_RUN = REPOSITORY / "tests" / "data" / "run_of_before"
OLD_AND_NEW = [
    ("split.val_share", "split.val_fraction"),
    ("split.test_share", "split.test_fraction"),
    ("loader.foreground_share", "loader.foreground_fraction"),
    ("schedule.warmup_share", "schedule.warmup_fraction"),
]


def test_the_table_lists_every_renamed_key() -> None:
    assert list(RENAMED_KEYS.items()) == OLD_AND_NEW


def fractions(config: TrainConfig) -> tuple[float, ...]:
    return (
        config.split.val_fraction,
        config.split.test_fraction,
        config.loader.foreground_fraction,
        config.schedule.warmup_fraction,
    )


# Command line -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW)
@pytest.mark.parametrize("form", ["{}=0.2", "+{}=0.2", "++{}=0.2", "~{}", "{}=0.1,0.2", "{}=choice(0.1,0.2)"])
def test_an_argument_with_an_old_key_is_rewritten_with_one_warning(
    old: str, new: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_understood(["lr=1", form.format(old), "-m"]) == ["lr=1", form.format(new), "-m"]
    warned = capsys.readouterr().err.splitlines()
    assert warned == [f"warning: {old} is now called {new}; the old name still works"]


def test_other_arguments_are_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["split.val_shares=1", "my.split.val_share=1", "logger.name=split.val_share=1", "split.seed=1"]
    assert as_understood(arguments) == arguments
    assert capsys.readouterr().err == ""


def test_the_command_accepts_an_old_key_in_single_runs_and_sweeps(tmp_path: Path) -> None:
    done = run_train(tmp_path, "--cfg", "job", "split.val_share=0.3")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["split"]["val_fraction"] == 0.3
    assert done.stderr.count("split.val_fraction") == 1
    swept = run_train(
        tmp_path, "-m", "split.val_share=0.6,0.7", "logger=none", f"output_dir={tmp_path}", f"cache_dir={tmp_path}"
    )
    assert swept.returncode == 2
    for value in ("0.6", "0.7"):  # each job received its value, which is rejected before any work
        assert f"split.val_fraction must be above 0 to 0.5; got {value}" in swept.stderr


# Files --------------------------------------------------------------------------------------------------------------


def test_a_study_may_use_old_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "study.yaml").write_text(
        "# @package _global_\n"
        "split:\n  val_share: 0.3\n  seed: ${seed}\n"
        "hydra:\n  sweeper:\n"
        "    params:\n      schedule.warmup_share: 0.1,0.2\n"
        "    arms:\n      few: [loader.foreground_share=0.3]\n      many: [+loader.foreground_share=0.6]\n"
    )
    monkeypatch.setattr(studies, "study_folders", lambda: [tmp_path])
    tree = read_study("mine")
    assert OmegaConf.to_container(tree.split) == {"val_fraction": 0.3, "seed": "${seed}"}
    sweeper = tree.hydra.sweeper
    arms = {str(name): list(arm) for name, arm in sweeper.arms.items()}
    found = combinations(OverridesParser.create(), dict(sweeper.params), arms, [])
    assert [each.overrides for each in found] == [
        ("schedule.warmup_fraction=0.1", "loader.foreground_fraction=0.3"),
        ("schedule.warmup_fraction=0.2", "loader.foreground_fraction=0.3"),
        ("schedule.warmup_fraction=0.1", "+loader.foreground_fraction=0.6"),
        ("schedule.warmup_fraction=0.2", "+loader.foreground_fraction=0.6"),
    ]


def test_the_recorded_configuration_of_an_old_run_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((OLD_RUN / "config.yaml").read_text())
    _, config = read_resumed([f"resume={tmp_path}"])
    assert config is not None
    assert fractions(config) == (0.15, 0.2, 0.5, 0.05)


def test_a_configuration_with_both_names_of_a_key_is_rejected() -> None:
    tree = OmegaConf.structured(compose_config())
    tree = OmegaConf.create(OmegaConf.to_container(tree))
    tree.split.val_share = 0.3
    with pytest.raises(InputError, match=r"split\.val_share and split\.val_fraction"):
        parse(tree)


def test_old_and_new_runs_with_the_same_settings_form_one_arm(tmp_path: Path) -> None:
    write_run(tmp_path / "old", seed=0, split__val_share=0.3, loader={"foreground_share": 0.5})
    write_run(tmp_path / "new", seed=1, split__val_fraction=0.3, loader={"foreground_fraction": 0.5})
    write_run(tmp_path / "other", seed=1, split__val_fraction=0.2, loader={"foreground_fraction": 0.5})
    study = results(tmp_path)
    assert {arm.n_runs: arm.settings["split.val_fraction"] for arm in study.arms} == {2: 0.3, 1: 0.2}
    by_old_name = results(tmp_path, group_by=["split.val_share"])
    assert {arm.n_runs for arm in by_old_name.arms} == {2, 1}


def test_old_keys_in_a_checkpoint_are_compared_under_their_new_names(spec: ModelSpec) -> None:
    now = json.loads(json.dumps(OmegaConf.to_container(OmegaConf.structured(compose_config()))))
    then = json.loads(json.dumps(now))
    for old, new in OLD_AND_NEW:
        group, name = new.split(".")
        then[group][old.split(".")[1]] = then[group].pop(name)
    last = Path("run/checkpoints/last.ckpt")
    check_same_settings(Unfinished(last, 1, then, spec), now)
    then["split"]["val_share"] = 0.25
    with pytest.raises(InputError, match=r"split\.val_fraction was 0\.25 and is now 0\.15"):
        check_same_settings(Unfinished(last, 1, then, spec), now)


@pytest.fixture
def spec() -> ModelSpec:
    from spleen.config.factory import build_spec

    return build_spec(compose_config("data.label_values=[1]"))


def test_identity_uses_the_original_key_names_so_that_finished_jobs_stay_finished() -> None:
    counted = settings_with_effect(compose_config())
    assert {old for old, _ in OLD_AND_NEW} <= set(counted)
    assert not {new for _, new in OLD_AND_NEW} & set(counted)
