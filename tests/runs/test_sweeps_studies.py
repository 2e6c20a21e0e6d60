"""Studies: which jobs they run, how their folders are named and found again, and command-line overrides."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from spleen.config.checking.checks import check
from spleen.config.datasets import find_dataset
from spleen.config.identity import known_identity
from spleen.config.parsing import parse
from spleen.config.patches import complete_patches
from spleen.errors import InputError
from spleen.runs.help import help_text
from spleen.runs.sweeps import studies
from spleen.runs.sweeps.plan import Combination, Job, check_parts, combinations, job_folder, plan
from spleen.runs.sweeps.studies import chosen_study, no_such_study, read_study, study_names, study_question
from tests._helpers.many_cases import many_cases
from tests._helpers.small_run import REPOSITORY, compose_config

PARSER = OverridesParser.create()


def expand(
    params: Mapping[str, object], arguments: Sequence[str] = (), arms: Mapping[str, Sequence[str]] | None = None
) -> list[tuple[str, ...]]:
    return [each.overrides for each in combinations(PARSER, params, arms or {}, list(arguments))]


def hydra_tree(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return compose("train", list(overrides), return_hydra_config=True)


def composed(found: Sequence[Combination]) -> list[tuple[Combination, DictConfig]]:
    return [(each, hydra_tree(*each.overrides)) for each in found]


def jobs_of(study: str, *arguments: str) -> list[Job]:
    """The jobs of `python train.py -m experiment=STUDY ARGUMENTS`."""
    sweeper = read_study(study).hydra.sweeper
    arms = {str(name): list(arm) for name, arm in sweeper.get("arms", {}).items()}
    found = combinations(PARSER, dict(sweeper.params), arms, [f"experiment={study}", *arguments])
    return plan(composed(found), in_study=True, subdir_given=False)


# Combinations -------------------------------------------------------------------------------------------------------


def test_params_are_combined_with_the_first_key_varying_slowest() -> None:
    assert expand({"img_size": "64,128", "lr": "1e-3,1e-4"}) == [
        ("img_size=64", "lr=0.001"),
        ("img_size=64", "lr=0.0001"),
        ("img_size=128", "lr=0.001"),
        ("img_size=128", "lr=0.0001"),
    ]


@pytest.mark.parametrize("given", ["lr=5", "+lr=5", "++lr=5"])
def test_the_command_line_replaces_a_param(given: str) -> None:
    key = given.removesuffix("=5")
    assert expand({"img_size": "64,128", "lr": "1,2,3"}, [given]) == [
        ("img_size=64", f"{key}=5"),
        ("img_size=128", f"{key}=5"),
    ]


def test_the_command_line_adds_swept_and_fixed_values_and_deletes_keys() -> None:
    assert expand({"lr": "1"}, ["seed=range(2)", "epochs=3", "~logger"]) == [
        ("lr=1", "seed=0", "epochs=3", "~logger"),
        ("lr=1", "seed=1", "epochs=3", "~logger"),
    ]


def test_arms_share_the_params_and_need_not_be_a_product() -> None:
    arms = {"narrow": ["model=unet"], "wide": ["model=unet_wide", "lr=2"]}
    assert expand({"seed": "0,1"}, [], arms) == [
        ("seed=0", "model=unet"),
        ("seed=1", "model=unet"),
        ("seed=0", "model=unet_wide", "lr=2"),
        ("seed=1", "model=unet_wide", "lr=2"),
    ]
    assert expand({"seed": "0"}, ["lr=5"], arms) == [
        ("seed=0", "model=unet", "lr=5"),
        ("seed=0", "model=unet_wide", "lr=5"),
    ]


def test_only_settings_that_differ_are_in_the_name() -> None:
    found = combinations(
        PARSER, {"lr": "1,2"}, {"a": ["model=unet"]}, ["epochs=3", "seed=0,1", "experiment=size_and_rate"]
    )
    assert found[0].distinguishing == ("lr=1", "model=unet", "seed=0")


def test_a_key_in_params_and_in_an_arm_is_refused() -> None:
    with pytest.raises(InputError, match=r"lr is in both params and the arm 'fast'"):
        expand({"lr": "1,2"}, [], {"fast": ["lr=3"]})


def test_an_interval_is_refused() -> None:
    with pytest.raises(InputError, match=r"lr=interval\(1,2\): a sweep needs discrete values"):
        expand({}, ["lr=interval(1,2)"])


# Jobs ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    return f"output_dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}"


def test_a_job_folder_is_named_by_differing_settings_and_identity_and_found_by_identity(
    folders: tuple[str, str], tmp_path: Path
) -> None:
    (job,) = jobs_of("size_and_rate", "img_size=64", "lr=1e-3", *folders)
    assert job.identity is not None
    assert job.folder == tmp_path / "out" / "size_and_rate" / f"img_size=64,lr=0.001-{job.identity[:8]}"
    job.folder.mkdir(parents=True)
    (same_job,) = jobs_of("size_and_rate", "++img_size=64", "lr=0.0010", "epochs=12", "logger=none", *folders)
    assert same_job.folder == job.folder
    (other_job,) = jobs_of("size_and_rate", "img_size=64", "lr=1e-3", "epochs=11", *folders)
    assert other_job.folder != job.folder
    assert other_job.folder.name.startswith("img_size=64,lr=0.001-")


def test_the_job_folder_is_passed_to_the_launcher_whatever_its_characters(tmp_path: Path) -> None:
    folder = tmp_path / "it's, a {folder}" / "a=[1,2],b='x'"
    overrides = Job(("lr=1",), folder, None).launcher_overrides()
    parsed = {each.key_or_group: each.value() for each in PARSER.parse_overrides(overrides)}
    assert parsed["hydra.sweep.dir"] == str(folder.parent)
    assert parsed["hydra.sweep.subdir"] == folder.name
    assert overrides[0] == "lr=1"


def test_a_3d_network_is_planned_as_it_is_trained(folders: tuple[str, str], tmp_path: Path) -> None:
    """A job is found again by the identity of what it trains, patches and levels included."""
    data = many_cases(tmp_path / "Task77", 2)
    (job,) = jobs_of("size_and_rate", *data.decathlon, "model=unet3d", "img_size=32", "lr=1e-3", *folders)
    check_parts([job], on_this_machine=False)
    assert job.config is not None
    config = complete_patches(job.config, ())  # as far as it is open, without the cases
    assert job.identity == known_identity(config, find_dataset(config).cases)
    assert len(config.crop_size) == 3


@pytest.mark.parametrize("key", ["init_from", "roi_from"])
def test_every_job_builds_upon_the_run_that_latest_meant_for_the_plan(tmp_path: Path, key: str) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "latest").symlink_to("first")
    given = f"{key}={tmp_path / 'latest'}"
    job = Job(("seed=1", given), tmp_path / "job", None, compose_config(given))
    parsed = [(each.key_or_group, each.value()) for each in PARSER.parse_overrides(job.launcher_overrides())]
    assert [value for name, value in parsed if name == key] == [str(tmp_path / "first")]


def test_combinations_that_give_the_same_job_are_run_once(folders: tuple[str, str]) -> None:
    jobs = jobs_of("size_and_rate", "img_size=64", "lr=1e-3,0.001,2e-3", "logger=none,wandb", *folders)
    assert len({job.folder for job in jobs}) == len(jobs) == 2


def test_outside_a_study_only_identical_settings_are_the_same_job(folders: tuple[str, str]) -> None:
    found = combinations(PARSER, {}, {}, ["lr=1e-3,1e-3", "trainer.progress=true,false", *folders])
    jobs = plan(composed(found), in_study=False, subdir_given=False)
    assert [job.folder.name for job in jobs] == ["lr=0.001,trainer.progress=True", "lr=0.001,trainer.progress=False"]
    assert len({job.folder.parent for job in jobs}) == 1
    assert re.fullmatch(r"\d{4}(-\d\d){2}_(\d\d-){3}\d{3}", jobs[0].folder.parent.name)


def test_different_jobs_with_the_same_name_get_separate_folders(folders: tuple[str, str]) -> None:
    found = combinations(PARSER, {}, {}, ["logger.name='a b','a:b'", *folders])
    names = [job.folder.name for job in plan(composed(found), in_study=False, subdir_given=False)]
    assert names[0] == "logger.name=_a_b_"
    assert re.fullmatch(r"logger\.name=_a_b_-[0-9a-f]{8}", names[1])


def test_invalid_settings_of_any_job_of_a_study_are_reported_before_the_first_starts(folders: tuple[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        jobs_of("size_and_rate", "img_size=64,3", "lr=1e-3,-1", "axis=axial", *folders)
    assert "img_size must be from 16" in str(caught.value)
    assert "lr must be above 0" in str(caught.value)
    with pytest.raises(InputError, match=r"/no/ct\.nii\.gz"):
        jobs_of("size_and_rate", "data=nifti", "data.image=/no/ct.nii.gz", "data.label=/no/l.nii.gz", *folders)


def test_invalid_settings_of_any_job_of_a_plain_sweep_are_reported(folders: tuple[str, str]) -> None:
    found = combinations(PARSER, {}, {}, ["axis=axial,axail", "lr=1,-1", *folders])
    with pytest.raises(InputError) as caught:
        plan(composed(found), in_study=False, subdir_given=False)
    assert "got 'axail'" in str(caught.value)
    assert "lr must be above 0" in str(caught.value)


def test_settings_that_cannot_be_built_are_reported_before_the_first_job_starts(folders: tuple[str, str]) -> None:
    found = combinations(PARSER, {}, {}, ["model.network.width=4,abc", "augment.flips=[],[up]", *folders])
    jobs = plan(composed(found), in_study=False, subdir_given=False)
    with pytest.raises(InputError) as caught:
        check_parts(jobs, on_this_machine=True)
    assert "model.network.width must be a whole number; got 'abc'" in str(caught.value)
    assert "got 'up'" in str(caught.value)


def test_job_folder_names_are_short_and_safe() -> None:
    assert job_folder("a=1,b=[x,y],c='p q'") == "a=1,b=[x,y],c=_p_q_"
    assert job_folder("data.image='/home/alice/scan 1.nii.gz',lr=1") == "data.image=scan_1.nii.gz,lr=1"
    assert job_folder("init_from=outputs/cv/axis=axial/fold=0/") == "init_from=fold=0"
    assert job_folder("") == "defaults"
    long, longer = job_folder("a=" + "x" * 300), job_folder("a=" + "x" * 301)
    assert len(long) == len(longer) == 120
    assert long != longer


# The shipped studies ------------------------------------------------------------------------------------------------


def test_the_documented_studies_are_shipped() -> None:
    assert {"size_and_rate", "slicing_axis", "augmentation"} <= set(study_names())


PRODUCTS = {
    "size_and_rate": [{"img_size": s, "lr": r} for s in (64, 128, 256, 512) for r in (1e-5, 1e-4, 1e-3)],
    "slicing_axis": [
        {"axis": axis, "context_slices": n} for axis in ("sagittal", "coronal", "axial") for n in (0, 1, 2)
    ],
}


@pytest.mark.parametrize("study", PRODUCTS)
def test_a_shipped_study_runs_its_documented_arms(study: str) -> None:
    params = read_study(study).hydra.sweeper.params
    found = combinations(PARSER, dict(params), {}, [f"experiment={study}", "loader.slices_per_epoch=null"])
    configs = [parse_task(hydra_tree(*each.overrides)) for each in found]
    assert [{key: getattr(config, key) for key in PRODUCTS[study][0]} for config in configs] == PRODUCTS[study]
    assert {config.study for config in configs} == {study}
    assert {config.loader.slices_per_epoch for config in configs} == {None}


def parse_task(tree: DictConfig):
    from omegaconf import OmegaConf

    config = parse(OmegaConf.masked_copy(tree, [key for key in tree if key != "hydra"]))
    check(config)
    return config


@pytest.mark.parametrize("study", study_names())
def test_a_shipped_study_documents_its_question_and_its_command(study: str) -> None:
    assert study_question(study).endswith("?")
    readme = (REPOSITORY / "experiments" / study / "README.md").read_text()
    assert f"python train.py -m experiment={study}" in readme
    assert "**Question.**" in readme


# User-defined studies -----------------------------------------------------------------------------------------------


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that replaces experiments/."""
    monkeypatch.setattr(studies, "study_folders", lambda: [tmp_path / "experiments"])
    store = ConfigStore.instance().repo
    before = dict(store.get("experiment", {}))
    yield tmp_path / "experiments"
    store["experiment"] = before


def test_a_study_in_the_current_folder_takes_precedence_over_a_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "experiments", "tune", "# Is this mine?\nlr: 0.5\n")
    shipped = study_names()
    monkeypatch.chdir(tmp_path)
    assert study_question("tune") == "Is this mine?"
    assert read_study("tune").lr == 0.5
    assert study_names() == shipped


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "study.yaml").write_text(text)


@pytest.mark.slow
def test_the_study_in_the_documentation_works_as_described(experiments: Path) -> None:
    (text,) = re.findall(
        r"```yaml\n(# Is a wider.*?)```", (REPOSITORY / "docs" / "how-to" / "studies.md").read_text(), re.S
    )
    write(experiments, "wider", text)
    assert study_question("wider") == "Is a wider network worth its time?"
    jobs = jobs_of("wider")
    assert len(jobs) == len({job.folder for job in jobs}) == 12
    config = parse_task(hydra_tree(*jobs[-1].overrides))
    assert (config.study, config.epochs, config.batch_size, config.seed) == ("wider", 20, 2, 2)
    assert config.augment["rotation_deg"] == 20  # strong
    assert config.model.name == parse_task(hydra_tree("model=unet_wide")).model.name
    assert parse_task(hydra_tree(*jobs[-1].overrides, "augment=none", "epochs=3")).augment["rotation_deg"] == 0


def test_a_study_may_choose_another_sweeper_and_launcher(experiments: Path) -> None:
    ConfigStore.instance().store(group="hydra/sweeper", name="mine", node={"_target_": "hydra_plugins.mine.Sweeper"})
    groups = "defaults:\n  - override /hydra/sweeper: mine\n  - override /hydra/launcher: joblib\n"
    write(experiments, "other", f"# Why?\n{groups}hydra: {{sweeper: {{n_trials: 3}}}}")
    hydra = hydra_tree("experiment=other").hydra
    assert hydra.sweeper == {"_target_": "hydra_plugins.mine.Sweeper", "n_trials": 3}
    assert hydra.launcher._target_.endswith("JoblibLauncher")
    assert hydra.sweep.dir.endswith("outputs/other")


@pytest.mark.parametrize(("text", "message"), [("a: [1", "expected"), ("- a\n- b\n", "no settings")])
def test_a_broken_study_is_reported_when_chosen_and_does_not_affect_the_others(
    experiments: Path, text: str, message: str
) -> None:
    write(experiments, "good", "# Why?\nepochs: 3\n")
    write(experiments, "bad", text)
    assert parse_task(hydra_tree("experiment=good")).epochs == 3
    assert message in no_such_study("bad")
    assert str(experiments / "bad" / "study.yaml") in no_such_study("bad")


def test_an_unreadable_study_is_listed_without_its_question(experiments: Path) -> None:
    write(experiments, "latin", "")
    (experiments / "latin" / "study.yaml").write_bytes("# Für wen?\n".encode("latin-1"))
    (experiments / "folder" / "study.yaml").mkdir(parents=True)
    assert [study_question(name) for name in study_names()] == ["", ""]
    assert "experiment=latin" in help_text("spleen train")
    assert "cannot be read" in no_such_study("latin")


def test_a_mistyped_study_is_reported_with_all_names_and_the_closest() -> None:
    message = no_such_study("size_and_rates")
    assert all(name in message for name in ("augmentation", "size_and_rate", "slicing_axis"))
    assert "Did you mean size_and_rate?" in message


def test_the_command_line_selects_at_most_one_study() -> None:
    assert chosen_study(["-m", "lr=1", "experiment=a"]) == "a"
    assert chosen_study(["experiment=null"]) is None
    assert chosen_study(["lr=1", "logger.name=experiment"]) is None
    for two in (["experiment=a,b"], ["experiment=a", "experiment=b"], ["experiment=choice(a,b)"]):
        with pytest.raises(InputError, match="one study at a time"):
            chosen_study(two)


# wandb's own sweeps -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_wandb_sweep_calls_train_py_with_arguments_that_hydra_accepts() -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load((REPOSITORY / "experiments" / "wandb_sweep.yaml").read_text())
    assert (REPOSITORY / sweep["program"]).is_file()
    assert sweep["command"][:3] == ["${env}", "${interpreter}", "${program}"]
    assert sweep["command"][-1] == "${args_no_hyphens}"
    fixed = sweep["command"][3:-1]
    for end in (0, -1):
        drawn = {
            key: {"value": (each["values"][end] if "values" in each else each["min" if end == 0 else "max"])}
            for key, each in sweep["parameters"].items()
        }
        arguments = create_sweep_command_args({"args": drawn})["args_no_hyphens"]
        config = parse_task(hydra_tree(*fixed, *arguments))
        assert config.lr == drawn["lr"]["value"]
        assert config.img_size == drawn["img_size"]["value"]
        assert config.model.network["width"] == drawn["model.network.width"]["value"]
    assert sweep["metric"] == {"name": "val/dice", "goal": "maximize"}
