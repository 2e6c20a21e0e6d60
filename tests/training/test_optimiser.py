from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from spleen.errors import InputError
from spleen.training.optimiser import lr_factor

SCHEDULE_FILES = sorted((Path(__file__).parents[2] / "conf" / "schedule").glob("*.yaml"))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Warm-up in quarters to the peak at step 3, then 4 steps of decay to step 7; the final 0.2 is kept.
        ("cosine", [0.25, 0.5, 0.75, 1.0, 0.2 + 0.8 * 0.85355339, 0.6, 0.2 + 0.8 * 0.14644661, 0.2, 0.2]),
        ("polynomial", [0.25, 0.5, 0.75, 1.0, 0.2 + 0.8 * 0.5625, 0.4, 0.25, 0.2, 0.2]),
        ("constant", [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_lr_factors_match_hand_computed_values(kind, expected):
    factors = [lr_factor(step, 8, 3, kind, power=2.0, final_factor=0.2) for step in range(9)]
    assert factors == pytest.approx(expected)


def test_one_cycle_matches_pytorch():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1.0, total_steps=20, pct_start=0.3, div_factor=25, final_div_factor=4
    )
    for step in range(20):
        # PyTorch includes the peak in its 6 warm-up steps; its last factor is 1 / (25 · 4).
        assert lr_factor(step, 20, 5, "one_cycle", final_factor=0.01) == pytest.approx(
            theirs.get_last_lr()[0], abs=1e-9
        )
        optimiser.step()
        if step < 19:
            theirs.step()


@pytest.mark.parametrize("kind", ["cosine", "polynomial", "constant", "one_cycle"])
@pytest.mark.parametrize(("total_steps", "warmup_steps"), [(1, 0), (1, 1), (2, 0), (3, 5)])
def test_lr_factors_are_positive_even_in_the_shortest_runs(kind, total_steps, warmup_steps):
    factors = [lr_factor(step, total_steps, warmup_steps, kind) for step in range(total_steps)]
    assert factors[0] > 0
    assert all(0 < factor <= 1 for factor in factors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "step"}, "cosine, polynomial, constant, one_cycle; got 'step'"),
        ({"step": -1}, "got -1, 2 and 10"),
        ({"power": 0.0}, "power .* got 0.0"),
        ({"final_factor": 1.5}, "final_factor .* got 1.5"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(InputError, match=message):
        lr_factor(**{"step": 0, "total_steps": 10, "warmup_steps": 2, "kind": "cosine", **arguments})


@pytest.mark.parametrize("file", SCHEDULE_FILES, ids=lambda file: file.stem)
def test_every_shipped_schedule_starts_low_and_peaks_after_warmup(file):
    settings = OmegaConf.to_container(OmegaConf.load(file))
    warmup_steps = round(settings.pop("warmup_fraction") * 200)
    assert settings["kind"] == file.stem
    factors = [lr_factor(step, 200, warmup_steps, **settings) for step in range(200)]
    assert factors[0] < 0.1
    assert factors.index(max(factors)) == warmup_steps
    assert max(factors) == 1.0
