"""The commands that a search prints at its end."""

from pathlib import Path

import pytest

from spleen.auto.page import commands
from spleen.auto.record import AutoRecord
from spleen.auto.session import Session


@pytest.mark.parametrize(
    ("target", "ending"),
    [("spleen.models.unet.UNet", "-o MASK.nii.gz"), ("my_package.MyNet", "-o MASK.nii.gz --allow-custom-code")],
)
def test_a_network_of_ones_own_is_predicted_with_the_option_that_it_needs(
    tmp_path: Path, target: str, ending: str
) -> None:
    record = AutoRecord(
        minutes=3.0,
        overrides=["data=phantom", f"model.network._target_={target}"],
        candidates={"light": ["augment=light"]},
        winner="light",
        runs={"final": ["augment=light", "study=auto"]},
        views={"final": 1.0},
    )
    assert commands(Session(tmp_path, record, started=0.0)).predict.endswith(ending)
