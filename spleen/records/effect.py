"""What of the settings may change the result of a run, for identities, resumed runs and result tables.

Imports nothing: a result table needs neither OmegaConf nor torch.
"""

# Keys, or whole groups, that do not change the result, and why.
WITHOUT_EFFECT = {
    "output_dir": "location of the run folders",
    "cache_dir": "location of the preprocessed slices",
    "verify": "checks of the preprocessed slices",
    "report": "a page made from the finished run",
    "study": "name of a folder",
    "allow_seen_test": "a check of init_from and roi_from",
    "debug": "how errors are shown",
    "search": "the trial of a search; a pruned run never counts as finished",
    "logger": "copies the run to a dashboard",
    "trainer.strategy": "how processes share the work; their number counts, as trainer.devices",
    "trainer.progress": "terminal output",
    "loader.num_workers": "which process reads a slice, not which slice",
    "loader.on_device": "where a batch is put together; the same but for rounding and, on a GPU, the noise",
}

DATA_PATHS = ("image", "label", "root", "images", "labels", "table", "groups")
"""The keys of data.* that are paths."""

# Compared by the content of the files where it is available, otherwise by path.
COUNTING_BY_CONTENT = (
    "init_from", "roi_from", "model.encoder_weights_file", "split.splits_file", "split.test_cases",
    *(f"data.{key}" for key in DATA_PATHS),
)  # fmt: skip

PATH_ARGUMENTS = tuple(f"{key.rpartition('.')[2]}=" for key in COUNTING_BY_CONTENT)
"""As the name of a job's folder says the name of a file or folder, which may be that of a patient."""


# Keys that earlier runs lack, with their defaults: a run without one is a run with the default.
ADDED: dict[str, str | int | float | bool | None] = {
    "data.background_values": None, "data.ignore_value": None, "data.labelled_classes": None, "freeze": None,
    "init_lr_factor": 1.0, "max_minutes": None, "score_test": True, "roi_margin_mm": 20.0, "roi_classes": None,
    "data.regions_class_order": None, "model.dimensions": 2, "model.encoder_weights_file": None,
    "augment.voxel_depth": "auto",
}  # fmt: skip


def has_effect(key: str) -> bool:
    """Whether the setting with this dotted key may change the result of a run."""
    return not any(key == name or key.startswith(f"{name}.") for name in WITHOUT_EFFECT)
