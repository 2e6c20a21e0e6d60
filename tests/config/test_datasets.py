"""Finding the cases of a configuration, and completing the configuration from their files."""

import json
from pathlib import Path

import pytest

from spleen.config.datasets import complete, find_dataset
from spleen.config.identity import identity
from spleen.config.schema import CtConfig, MrConfig, TrainConfig
from spleen.errors import InputError
from tests._helpers.many_cases import ManyCases, many_cases, relabel
from tests._helpers.small_run import compose_config
from tests.data.test_layouts_nnunet import ONE_CASE, make_nnunet


@pytest.fixture
def data(tmp_path: Path) -> ManyCases:
    return many_cases(tmp_path / "data", 4)


def change(data: ManyCases, **entries: object) -> None:
    """Overwrite entries of dataset.json."""
    path = data.root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def completed_by_files(config: TrainConfig) -> TrainConfig:
    return complete(config, find_dataset(config))


def completed(data: ManyCases, *overrides: str) -> TrainConfig:
    return completed_by_files(compose_config(*data.decathlon, *overrides))


def identity_of(config: TrainConfig) -> str:
    return identity(config, find_dataset(config).cases)


# Values completed from the files -------------------------------------------------------------------------------------


def test_classes_channels_and_modality_are_read_from_the_files(data: ManyCases) -> None:
    config = completed(data)
    assert config.data.label_values == {"front": [1], "back": [2]}
    assert config.data.channels == 1
    assert config.intensity == CtConfig("ct", 50.0, 400.0)  # the values in conf/intensity/ct.yaml
    assert completed_by_files(config) == config


def test_the_ignore_label_of_a_dataset_may_be_a_class_of_ones_own(tmp_path: Path) -> None:
    root = make_nnunet(tmp_path, *ONE_CASE, labels={"background": 0, "spleen": 1, "ignore": 2})
    given = "data=nnunet", f"data.root={root}", "intensity=ct"
    assert completed_by_files(compose_config(*given)).data.ignore_value == 2
    own = "data.label_values={spleen: [1], unsure: [2]}"
    assert completed_by_files(compose_config(*given, own)).data.ignore_value is None


def test_mr_data_selects_mr_intensity_and_logs_the_reason(data: ManyCases, caplog: pytest.LogCaptureFixture) -> None:
    change(data, modality={"0": "T2w"})
    with caplog.at_level("INFO"):
        assert completed(data).intensity == MrConfig("mr", 0.5, 99.5)
    assert "intensity=mr, since the data's files say T2w" in caplog.text


def test_explicit_settings_override_values_from_the_files(data: ManyCases) -> None:
    config = completed(data, "intensity=zscore", "data.label_values={all: [1, 2]}", "data.channels=3")
    assert config.intensity.kind == "zscore"
    assert config.data.label_values == {"all": [1, 2]}
    assert config.data.channels == 3


def test_an_unknown_modality_requires_an_explicit_intensity(data: ManyCases) -> None:
    change(data, modality={"0": "PET"})
    with pytest.raises(InputError, match=r"intensity=auto: the files of data=decathlon do not say .* CT or MR"):
        completed(data)
    assert completed(data, "intensity=mr").intensity.kind == "mr"


def test_auto_intensity_of_a_single_volume() -> None:
    assert completed_by_files(compose_config("intensity=auto")).intensity.kind == "ct"  # the phantom is a CT
    with pytest.raises(InputError, match="the files of data=nifti do not say"):
        completed_by_files(compose_config("data=nifti", "intensity=auto", "data.image=a.nii", "data.label=b.nii"))


def test_the_fourth_dimension_is_read_as_channels(tmp_path: Path) -> None:
    data = many_cases(tmp_path / "two", 2, channels=2)
    assert completed(data).data.channels == 2
    data.image("c0").write_bytes(b"broken")  # read from the next case
    assert completed(data).data.channels == 2
    data.image("c1").write_bytes(b"broken")  # read from dataset.json
    assert completed(data).data.channels == 2


def test_two_plain_folders_provide_only_the_channel_count(data: ManyCases) -> None:
    config = completed_by_files(compose_config(*data.folder))
    assert (config.data.channels, config.data.label_values, config.intensity.kind) == (1, None, "ct")


# Groups --------------------------------------------------------------------------------------------------------------


def test_groups_are_read_from_a_file(data: ManyCases, tmp_path: Path) -> None:
    groups = tmp_path / "groups.csv"
    groups.write_text("case_id,group\nc0,p\nc1,p\nc2,q\nc3,r\nelsewhere,q\n")
    cases = find_dataset(compose_config(*data.decathlon, f"data.groups={groups}")).cases
    assert [case.group for case in cases] == ["p", "p", "q", "r"]
    groups.write_text("case_id,group\nc0,p\nc3,r\n")
    with pytest.raises(InputError, match=r"groups\.csv has no group for 2 cases, for example c1"):
        find_dataset(compose_config(*data.decathlon, f"data.groups={groups}"))


def test_a_groups_file_overrides_the_groups_of_a_table(data: ManyCases, tmp_path: Path) -> None:
    rows = [f"{data.image(case)},{data.label(case)},old" for case in data.labels]
    (tmp_path / "cases.csv").write_text("\n".join(["image,label,group", *rows]))
    table = ("data=table", f"data.table={tmp_path / 'cases.csv'}")
    assert {case.group for case in find_dataset(compose_config(*table)).cases} == {"old"}
    (tmp_path / "groups.csv").write_text("case_id,group\nc0,p\nc1,p\nc2,q\nc3,r\n")
    cases = find_dataset(compose_config(*table, f"data.groups={tmp_path / 'groups.csv'}")).cases
    assert [case.group for case in cases] == ["p", "p", "q", "r"]


# Identity ------------------------------------------------------------------------------------------------------------


def test_identity_depends_on_file_content_but_not_on_location(data: ManyCases, tmp_path: Path) -> None:
    before = identity_of(completed(data))
    moved = ManyCases(tmp_path / "elsewhere", data.labels)
    data.root.rename(moved.root)
    assert identity_of(completed(moved)) == before
    relabel(moved, "c2", lambda label: label[::-1].copy())
    assert identity_of(completed(moved)) != before


def test_identity_depends_on_every_split_setting(data: ManyCases, tmp_path: Path) -> None:
    def of(*overrides: str) -> str:
        return identity_of(completed(data, *overrides))

    def written(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    first = written("a.json", '[{"train": ["c0"], "val": ["c1"]}]')
    same = written("b.json", '[{"train": ["c0"], "val": ["c1"]}]')
    other = written("c.json", '[{"train": ["c0"], "val": ["c2"]}]')
    lone = written("groups1.csv", "case_id,group\nc0,p\nc1,q\nc2,r\nc3,s\n")
    paired = written("groups2.csv", "case_id,group\nc0,p\nc1,p\nc2,r\nc3,s\n")
    assert of(f"split.splits_file={first}", "fold=0") == of(f"split.splits_file={same}", "fold=0")
    listed = written("test.txt", "c1\n")
    different = [
        (), ("fold=0",), ("fold=1",), ("fold=all",), ("split.folds=4",), (f"split.splits_file={first}", "fold=0"),
        (f"split.splits_file={other}", "fold=0"), (f"split.test_cases={listed}",), (f"data.groups={lone}",),
        (f"data.groups={paired}",), ("img_size=native",), ("crop_size=32",),
    ]  # fmt: skip
    assert len({of(*overrides) for overrides in different}) == len(different)


def test_identity_depends_on_the_classes_in_dataset_json(data: ManyCases) -> None:
    before = identity_of(completed(data))
    assert identity_of(completed(data, "data.label_values={front: [1], back: [2]}")) == before
    change(data, labels={"0": "background", "1": "front", "2": "rear"})
    assert identity_of(completed(data)) != before
