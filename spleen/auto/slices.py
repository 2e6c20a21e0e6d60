"""The slices of a search, prepared before its recipes compete, so that none of them pays for it."""

from spleen.config.datasets import complete, find_dataset
from spleen.config.factory import build_spec
from spleen.config.schema import TrainConfig
from spleen.runs.data import open_data


def prepare_slices(config: TrainConfig) -> None:
    """Fill the slice store for runs of this configuration; with `roi_from` every run finds its boxes itself.

    Raises InputError for files or a split that no run could use.
    """
    if config.roi_from is not None:
        return
    dataset = find_dataset(config)
    config = complete(config, dataset)
    open_data(config, dataset.cases, build_spec(config).preprocessing, dataset.known_values)
