"""Which settings have no effect on the result of a run: one list for identities, resumed runs and tables of results.

Nothing is imported here: a table of results needs neither OmegaConf nor torch.
"""

# Keys, and groups with all that is in them, that change nothing about the result; and why.
WITHOUT_EFFECT = {
    "output_dir": "says where the run is kept",
    "cache_dir": "says where preprocessed slices are kept",
    "study": "is the name of a folder",
    "debug": "says how an error is shown",
    "search": "says which trial of a search the run is; one that is pruned never counts as finished",
    "logger": "mirrors the run for looking",
    "trainer.strategy": "says how processes share the work; their number counts, with trainer.devices",
    "trainer.progress": "says what the terminal shows",
    "loader.num_workers": "says which process reads a slice, not which slice",
}

DATA_PATHS = ("image", "label", "root", "images", "labels", "table", "groups")
"""The keys of data.* that say where files lie."""

# These count by the content of the files where that is at hand, and elsewhere by their names.
COUNTING_BY_CONTENT = ("split.splits_file", "split.test_cases", *(f"data.{key}" for key in DATA_PATHS))


def has_effect(key: str) -> bool:
    """Whether the setting with this dotted key may change the result of a run."""
    return not any(key == name or key.startswith(f"{name}.") for name in WITHOUT_EFFECT)
