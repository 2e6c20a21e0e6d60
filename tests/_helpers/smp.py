"""Skips the tests of encoders from segmentation_models_pytorch where it is not installed."""

from collections.abc import Iterable
from importlib.util import find_spec

import pytest

needs_smp = pytest.mark.skipif(
    find_spec("segmentation_models_pytorch") is None,
    reason="segmentation-models-pytorch is not installed: pip install 'spleen[smp]'",
)


def models(options: Iterable[object]) -> list[object]:
    """Options of conf/model as parameters of a test; those of the package are skipped without it."""
    return [pytest.param(option, marks=needs_smp) if "smp_" in str(option) else option for option in options]
