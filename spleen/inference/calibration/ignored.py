"""The value of reference voxels that do not count, as the runs know it."""

from collections.abc import Sequence

from spleen.errors import InputError
from spleen.inference.loading import TrainedModel


def ignored_value(models: Sequence[TrainedModel]) -> int | None:
    """The label value of voxels that nobody has labelled, in the runs' trainings; None if no run ignores any.

    Raises InputError if runs ignore different values.
    """
    names = {model.preprocessing.ignore_value: model.name for model in models}
    names.pop(None, None)
    if len(names) > 1:
        told = ", ".join(f"{value} ({name})" for value, name in names.items())
        raise InputError(
            f"the runs ignore different label values, {told}; use runs that agree, or for "
            "spleen calibrate and followup say which one the labels have with --ignore-value"
        )
    return next(iter(names), None)
