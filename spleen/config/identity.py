"""The identity of a job: a hash of everything that determines its result, by which a finished job is recognised."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from spleen.config.schema import CasesData, PhantomData, TrainConfig, process_count
from spleen.data.cases import Case
from spleen.errors import InputError
from spleen.inference.choice import one_checkpoint
from spleen.records.effect import ADDED, COUNTING_BY_CONTENT, has_effect
from spleen.records.renamed_keys import EARLIER_KEYS, EARLIER_TARGETS
from spleen.system.hashing import content_hash
from spleen.system.nested import flatten

# Incremented when the same settings and data no longer give the same result, so that earlier results no longer count.
FORMAT = 1


def identity(config: TrainConfig, cases: Sequence[Case]) -> str:
    """SHA-256 of the settings with an effect, the files of the cases, and `FORMAT`; 64 hex digits.

    Numbers are compared by value: 1 and 1.0 are equal. Raises OSError for a file that cannot be read.
    """
    content = {"format": FORMAT, "settings": settings_with_effect(config), "files": _file_hashes(config, cases)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def known_identity(config: TrainConfig, cases: Sequence[Case]) -> str | None:
    """Like `identity`, but None if a file cannot be read: reading the data gives the better error message."""
    try:
        return identity(config, cases)
    except OSError:
        return None


def settings_with_effect(config: TrainConfig) -> dict[str, object]:
    """The settings that may change the result, by dotted key, with every number as a float.

    Nodes and devices count only by their product, the number of processes. Renamed keys and classes have their earlier
    names, so that finished jobs stay finished.
    """
    settings = {
        EARLIER_KEYS.get(key, key): EARLIER_TARGETS.get(str(value), _plain(value))
        for key, value in flatten(asdict(config)).items()
        if has_effect(key) and key not in COUNTING_BY_CONTENT
    }
    del settings["trainer.num_nodes"]
    for key, default in ADDED.items():
        if settings.get(key, ...) == default:  # jobs finished before there was this key stay finished
            del settings[key]
    if config.trainer.num_nodes > 1:
        settings["trainer.devices"] = float(process_count(config.trainer))
    return settings


def _file_hashes(config: TrainConfig, cases: Sequence[Case]) -> dict[str, str]:
    """Hashes of the data files, the first weights and the coarse run; the phantom is determined by its settings."""
    memory = Path(config.cache_dir) / "hashes"
    hashes = {}
    for key, run, fold in (("init_from", config.init_from, None), ("roi_from", config.roi_from, config.fold)):
        if run:
            path = Path(run)
            with suppress(InputError):  # a folder without a single checkpoint is told when the run begins
                path = one_checkpoint(key, path, fold)
            hashes[key] = content_hash(path, memory)
    if config.model.encoder_weights_file:
        hashes["encoder_weights_file"] = content_hash(Path(config.model.encoder_weights_file), memory)
    if isinstance(config.data, PhantomData):
        return hashes
    named = {"splits_file": config.split.splits_file, "test_cases": config.split.test_cases}
    hashes |= {name: content_hash(Path(path), memory) for name, path in named.items() if path}
    for case in cases:
        files = [content_hash(path, memory) for path in (*case.images, case.label)]
        # The name of a single volume does not matter; the names of many cases determine their order, and so the split.
        name = f"case {case.case_id}" if isinstance(config.data, CasesData) else "case"
        hashes[name] = " ".join([*files, case.group or "", *(["labelled:", *case.labelled] if case.labelled else [])])
    return hashes


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value
