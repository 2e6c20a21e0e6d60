"""Seeded fuzzing of untrusted input: command lines, metadata files and checkpoints.

Every input gives either a result or an InputError with a message. For NIfTI see
tests/imaging/test_damaged_nifti.py.
"""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.config.factory import build_fit_settings, build_parts
from spleen.data.layouts.decathlon import read_decathlon
from spleen.data.layouts.nnunet import read_nnunet
from spleen.data.layouts.table import read_groups, read_table
from spleen.data.splits.files import read_case_list, read_splits
from spleen.errors import InputError
from spleen.inference.loading import load_trained
from spleen.inference.record import read_record
from spleen.records.cases import read_cases, read_known_cases
from spleen.records.folder import read_summary
from spleen.records.reading import read_run
from spleen.runs.api import compose_config
from spleen.runs.main import as_understood
from spleen.runs.messages import check_arguments
from spleen.runs.results.results import results
from spleen.runs.resume_command import read_resumed
from tests._helpers.forged_checkpoints import forge_spec
from tests._helpers.nifti import box, counting, ras_affine, save
from tests._helpers.trained_runs import BRIGHT, trained

pytestmark = pytest.mark.slow

Random = np.random.Generator


def pick(random: Random, choices: list[str]) -> str:
    return choices[int(random.integers(len(choices)))]


# Command lines ------------------------------------------------------------------------------------------------------

KEYS = [
    "lr", "img_size", "axis", "batch_size", "epochs", "seed", "context_slices", "resize", "precision", "compile",
    "data", "model", "loss", "augment", "schedule", "intensity", "trainer", "logger", "fold", "crop_size", "verify",
    "model.network.width", "model.network.depth", "model.network._target_", "model.size_multiple", "loss._target_",
    "augment.rotation_degrees", "augment.flips", "augment.nothing", "split.val_fraction", "split.test_fraction",
    "split.guard_mm", "split.test_blocks", "loader.num_workers", "loader.foreground_fraction", "trainer.devices",
    "trainer.strategy", "optimiser.weight_decay", "optimiser.ema_decay", "data.image", "data.label_values",
    "data.root", "study", "output_dir", "grid_tolerance_mm", "logger.mode", "nothing", "", "~lr", "+lr", "++epochs",
]  # fmt: skip
VALUES = [
    "1", "0", "-1", "1e-3", "1e400", "nan", "inf", "abc", "null", "true", "", "[]", "[1,2]", "{a: 1}", "'x", '"', "(",
    "${lr}", "${nothing}", "${oc.env:HOME}", "native", "axial", "coronal,axial", "300", "1.5", "light", "unet", "ct",
    "scan (1).nii.gz", "~/x", "é", "a=b", "[", "}", "\\", "0.1e", "9" * 30, "psutil.Popen", "monai_unet", "10000000",
]  # fmt: skip


VALID = ["lr=1e-3", "img_size=64", "axis=axial", "epochs=3", "augment=light", "model.network.width=4", "seed=1"]
ODD = ["-m", "--cfg", "lr", "--lr", "-x", "=", "experiment=nothing", "hydra.run.dir=x"]


@pytest.mark.parametrize("seed", range(4))
def test_200_train_command_lines_are_accepted_or_refused_with_a_message(seed: int) -> None:
    random = np.random.default_rng(seed)
    outcomes = {"accepted": 0, "refused": 0}
    for _ in range(200):
        given = [f"{pick(random, KEYS)}={pick(random, VALUES)}" for _ in range(int(random.integers(3)))]
        given += [pick(random, VALID) for _ in range(int(random.integers(3)))]
        if random.random() < 0.1:
            given.append(
                pick(random, ["-m", "--cfg", "lr", "--lr", "-x", "=", "experiment=nothing", "hydra.run.dir=x"])
            )
        try:
            arguments = as_understood(given)
            check_arguments(arguments)
            config = compose_config([*arguments, "logger=none"])
            build_fit_settings(config)
            build_parts(config)
            outcomes["accepted"] += 1
        except InputError as error:
            assert str(error), given  # noqa: PT017  (either outcome is valid)
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{given}: {error!r}") from error
    assert min(outcomes.values()) > 10


def test_200_command_lines_of_other_commands_never_print_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path_factory, "axial", *BRIGHT, "axis=axial", "split.guard_mm=1")
    monkeypatch.chdir(tmp_path)
    image = save(tmp_path / "ct.nii.gz", counting(), ras_affine())
    label = save(tmp_path / "seg.nii.gz", box(), ras_affine())
    (tmp_path / "text.txt").write_text("no image\n")
    words = [
        str(run), str(image), str(label), str(tmp_path), "nowhere", "text.txt", "", "*", "-", "a b", "--output", "-o",
        "out.nii.gz", "out", "--tta", "--keep-largest", "all", "liver", "--min-volume-mm3", "-5", "nan", "--classes",
        "1=spleen", "1=", "x", "--tolerance-mm", "2", "--flips", "left_right", "--csv", "t.csv", "--json", "--plot",
        "p.png", "--label", "--weights", "1,2", "--device", "cpu", "gpu", "--batch-size", "0", "--overwrite",
        "--skip-existing", "--held-out", "--format", "onnx", "--metric", "dice", "--nothing",
    ]  # fmt: skip
    random, runner = np.random.default_rng(0), CliRunner()
    for _ in range(200):
        command = pick(random, ["predict", "evaluate", "compare", "explore", "results", "export", "sync"])
        arguments = [pick(random, words) for _ in range(int(random.integers(1, 6)))]
        done = runner.invoke(app, [command, *arguments])
        assert done.exit_code in (0, 1, 2), (command, arguments, done.output)
        assert "Traceback" not in done.output, (command, arguments, done.output)
        assert done.exit_code == 0 or done.output, (command, arguments)


# Metadata -----------------------------------------------------------------------------------------------------------

JSON_VALUES = [
    "null",
    "1",
    "-1",
    "1e999",
    '""',
    '"x"',
    "[]",
    "[[]]",
    "{}",
    '{"a": 1}',
    "true",
    '"../../etc"',
    '"\\u0000"',
]


def mutated(random: Random, content: bytes) -> bytes:
    """The content with bytes changed, parts repeated or removed, or a JSON value replaced."""
    data = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        at = int(random.integers(len(data))) if data else 0
        match int(random.integers(6)):
            case 0:
                data[at : at + 1] = bytes([int(random.integers(256))])
            case 1:
                data = data[:at]
            case 2:
                data[at : at + int(random.integers(40))] = b""
            case 3:
                data[at:at] = data[at : at + 60]
            case 4:
                data[at : at + 1] = [b"\x1b", b"\xff", "é".encode(), b"\r\n", b"\x00", b'"', b",", b"=1+1"][
                    int(random.integers(8))
                ]
            case _:
                value = pick(random, JSON_VALUES).encode()
                colon = data.find(b":", at)
                if colon >= 0:
                    end = min(
                        (e for e in (data.find(b",", colon), data.find(b"\n", colon)) if e > 0), default=len(data)
                    )
                    data[colon + 1 : end] = value
    return bytes(data)


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Callable[[], object]]]:
    """A valid file of each kind, and the function that reads it."""
    folder = tmp_path_factory.mktemp("metadata")
    run = trained(tmp_path_factory, "axial", *BRIGHT, "axis=axial", "split.guard_mm=1")
    image = save(folder / "ct.nii.gz", counting(), ras_affine())
    label = save(folder / "seg.nii.gz", box(), ras_affine())
    for name in ("decathlon", "nnunet"):
        for inner in ("imagesTr", "labelsTr"):
            (folder / name / inner).mkdir(parents=True)
        suffix = "_0000" if name == "nnunet" else ""
        save(folder / name / "imagesTr" / f"a{suffix}.nii.gz", counting(), ras_affine())
        save(folder / name / "labelsTr" / "a.nii.gz", box(), ras_affine())
    decathlon = {
        "modality": {"0": "CT"}, "labels": {"0": "background", "1": "spleen"}, "numTraining": 1,
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }  # fmt: skip
    nnunet = {
        "channel_names": {"0": "CT"}, "labels": {"background": 0, "spleen": 1}, "numTraining": 1,
        "file_ending": ".nii.gz",
    }  # fmt: skip
    (folder / "decathlon" / "dataset.json").write_text(json.dumps(decathlon, indent=1))
    (folder / "nnunet" / "dataset.json").write_text(json.dumps(nnunet, indent=1))
    (folder / "table.csv").write_text(f"case_id,image,label,group\na,{image},{label},p1\n")
    (folder / "splits.json").write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}], indent=1))
    (folder / "cases.txt").write_text("a\nb\n")
    copy = folder / "outputs" / "run"
    copy.mkdir(parents=True)
    for name in ("config.yaml", "summary.json", "cases.csv", "metrics.csv", "split.json"):
        (copy / name).write_bytes((run / name).read_bytes())
    other = folder / "stopped"
    (other / "checkpoints").mkdir(parents=True)
    (other / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    header = "case_id,image,prediction,label_values,class_name,volume_mm3,n_components,largest_component_fraction,"
    header += "soft_dice_confidence,agreement,volume_to_training,confidence_score,review,reasons\n"
    (folder / "predictions.csv").write_text(header + "a,/ct.nii.gz,a.nii.gz,1,spleen,12.5,1,1,0.9,nan,1,0.9,no,\n")
    return {
        "decathlon": (folder / "decathlon" / "dataset.json", lambda: read_decathlon(folder / "decathlon")),
        "nnunet": (folder / "nnunet" / "dataset.json", lambda: read_nnunet(folder / "nnunet")),
        "table": (folder / "table.csv", lambda: read_table(folder / "table.csv")),
        "groups": (folder / "table.csv", lambda: read_groups(folder / "table.csv")),
        "splits": (folder / "splits.json", lambda: read_splits(folder / "splits.json")),
        "cases": (folder / "cases.txt", lambda: read_case_list(folder / "cases.txt")),
        "predictions": (folder / "predictions.csv", lambda: read_record(folder / "predictions.csv")),
        "config": (copy / "config.yaml", lambda: read_run(copy)),
        "resume": (other / "config.yaml", lambda: read_resumed([f"resume={other}"])),
        "summary": (copy / "summary.json", lambda: (read_run(copy), read_summary(copy))),
        "scores": (copy / "cases.csv", lambda: read_cases(copy)),
        "split": (copy / "split.json", lambda: read_known_cases(copy)),
        "study": (copy / "metrics.csv", lambda: results(copy)),
    }


@pytest.mark.parametrize(
    "kind",
    ["decathlon", "nnunet", "table", "groups", "splits", "cases", "predictions", "config", "resume", "summary",
     "scores", "split", "study"],
)  # fmt: skip
def test_160_mutated_metadata_files_are_read_or_refused(
    metadata: dict[str, tuple[Path, Callable[[], object]]], kind: str
) -> None:
    path, read = metadata[kind]
    valid = path.read_bytes()
    random = np.random.default_rng(sum(map(ord, kind)))
    read()  # the unchanged file is valid
    try:
        for _ in range(160):
            content = mutated(random, valid)
            path.write_bytes(content)
            try:
                read()
            except InputError:
                pass
            except Exception as error:
                raise AssertionError(f"{kind}: {content!r}") from error
    finally:
        path.write_bytes(valid)


# Checkpoints --------------------------------------------------------------------------------------------------------


def test_300_damaged_checkpoints_are_refused_or_load_unchanged(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    run = trained(tmp_path_factory, "axial", *BRIGHT, "axis=axial", "split.guard_mm=1")
    best = run / "checkpoints" / "best.ckpt"
    expected, whole = load_trained(best).network.state_dict(), best.read_bytes()
    random, path, n_refused = np.random.default_rng(0), tmp_path / "damaged.ckpt", 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(int(random.integers(1, 3))):
            at = int(random.integers(len(data)))
            match int(random.integers(4)):
                case 0:
                    data[at] ^= 1 << int(random.integers(8))
                case 1:
                    data = data[: max(1, at)]
                case 2:
                    data[at : at + 50] = random.bytes(50)
                case _:
                    data[at:at] = random.bytes(int(random.integers(1, 100)))
        path.write_bytes(data)
        try:
            found = load_trained(path).network.state_dict()
        except InputError as error:
            assert "damaged.ckpt" in str(error)  # noqa: PT017  (either outcome is valid)
            n_refused += 1
        else:
            assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert n_refused > 200


def test_100_mutated_model_specs_are_refused_or_load(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    run = trained(tmp_path_factory, "axial", *BRIGHT, "axis=axial", "split.guard_mm=1")
    random = np.random.default_rng(1)
    valid = forge_spec(run, tmp_path / "valid.ckpt", lambda _: None)
    with zipfile.ZipFile(valid) as archive:
        assert archive.testzip() is None
    content = torch.load(valid, weights_only=True)
    for _ in range(100):
        text = mutated(random, content["model_spec"].encode()).decode("utf-8", "replace")
        torch.save({**content, "model_spec": text}, tmp_path / "spec.ckpt")
        try:
            load_trained(tmp_path / "spec.ckpt")
        except InputError:
            pass
        except Exception as error:
            raise AssertionError(text) from error
