"""What `import spleen` gives: these names, each at first use, and nothing heavy before."""

import subprocess
import sys

import pytest

import spleen

NAMES = [
    "Comparison", "Evaluation", "Exploration", "InputError", "Model", "PredictSettings", "Prediction", "StudyResults",
    "TrainedRun", "compare", "evaluate", "explore", "export", "fetch", "load_model", "predict", "results", "train",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there_under_its_own_name(name: str) -> None:
    assert getattr(spleen, name).__name__ == name
    assert name in dir(spleen)


def test_there_are_no_other_names() -> None:
    assert sorted(spleen._MODULE_OF) == NAMES
    with pytest.raises(AttributeError, match="module 'spleen' has no attribute 'nothing'"):
        spleen.nothing  # noqa: B018


def test_importing_is_light() -> None:
    program = (
        "import sys, spleen; "
        "print([name for name in ('torch', 'numpy', 'hydra', 'nibabel', 'typer', 'wandb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
