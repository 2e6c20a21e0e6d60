"""`spleen.train` does in this process what the command does, and gives back what is in the run folder."""

import os
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import spleen
from spleen.errors import InputError
from tests._helpers.small_run import SmallCt, rows, small, small_ct, train


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("a folder, with = and (brackets)"))


ORGAN = ("data.label_values=[3,4]", "epochs=2")


def test_it_trains_as_the_command_does(ct: SmallCt, tmp_path: Path) -> None:
    before = list(sys.argv), Path.cwd(), dict(os.environ)
    run = spleen.train(
        *small(*ORGAN),
        data={"image": ct.image, "label": ct.label},
        output_dir=tmp_path / "out put",
        cache_dir=tmp_path / "cache",
        study="api",
        trainer={"early_stopping_patience": None, "progress": False},
    )
    assert (list(sys.argv), Path.cwd(), dict(os.environ)) == before
    assert not GlobalHydra.instance().is_initialized()
    assert run.folder.parent == tmp_path / "out put" / "api"
    data = f"data.image='{ct.image}'", f"data.label='{ct.label}'"
    expected = train(tmp_path, *data, *ORGAN)
    assert (run.folder / "metrics.csv").read_text() == (expected / "metrics.csv").read_text()
    assert (run.folder / "cases.csv").read_text() == (expected / "cases.csv").read_text()
    table = rows(expected / "cases.csv")
    (tested,) = (row for row in table if row["split"] == "test")
    assert run.dice == pytest.approx(float(tested["dice"]), abs=1e-6)
    assert [row["epoch"] for row in run.history] == [0, 1]
    assert len(run.cases) == len(table)
    assert repr(run) == f"TrainedRun({run.folder}, test Dice {run.dice:.4f})"
    assert f"{run.dice:.4f}" in run._repr_html_()
    another = spleen.train(
        *small(*ORGAN, *data), output_dir=tmp_path / "out put", cache_dir=tmp_path / "cache", study="api"
    )
    assert another.folder != run.folder
    study = spleen.results(tmp_path / "out put" / "api")
    assert repr(study).startswith(f"StudyResults({study.folder}, 1 arm(s), 1 finished run(s)")
    assert "test Dice" in study._repr_html_()


@pytest.mark.parametrize(
    ("overrides", "settings", "message"),
    [
        ((), {"lr": "x"}, "lr: Value 'x' of type 'str' could not be converted to Float"),
        (("lrr=1",), {}, "unknown key 'lrr'; did you mean lr?"),
        ((), {"axis": "axail"}, "axis must be one of sagittal, coronal, axial; got 'axail'"),
        ((), {"data": "nifty"}, "data=nifty: no such option"),
        ((), {"experiment": "tune"}, "a study is several runs; run it by its command"),
        (("data=nifti", "data.image=/nowhere.nii", "data.label=/nowhere.nii"), {}, "nowhere.nii"),
    ],
)
def test_what_is_wrong_is_told_as_the_command_tells_it(
    tmp_path: Path, overrides: tuple[str, ...], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        spleen.train(*overrides, **settings, output_dir=tmp_path / "outputs", cache_dir=tmp_path / "cache")
