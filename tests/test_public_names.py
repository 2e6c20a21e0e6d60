"""`import spleen` exposes exactly these names, loads each on first use, and imports nothing heavy."""

import subprocess
import sys

import pytest

import spleen

NAMES = [
    "Comparison", "Evaluation", "Exploration", "FollowUp", "InputError", "Model", "PredictSettings", "Prediction",
    "StudyResults", "TrainedRun", "calibrate", "compare", "evaluate", "explore", "export", "fetch", "follow_up",
    "load_model", "predict", "propagate", "results", "suggest_slices", "train",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_resolves_to_the_object_of_that_name(name: str) -> None:
    assert getattr(spleen, name).__name__ == name
    assert name in dir(spleen)


def test_no_other_names_are_public() -> None:
    assert sorted(spleen._MODULE_OF) == NAMES
    with pytest.raises(AttributeError, match="module 'spleen' has no attribute 'nothing'"):
        spleen.nothing  # noqa: B018


def test_import_spleen_loads_no_heavy_library() -> None:
    program = (
        "import sys, spleen; "
        "print([name for name in ('torch', 'numpy', 'hydra', 'nibabel', 'typer', 'wandb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
