"""What a study.yaml may contain, so that running a study from somebody else runs none of its code."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from spleen.config.overrides import key_of
from spleen.config.untrusted import OWN_RESOLVERS, REMEDY, check_interpolations
from spleen.errors import InputError
from spleen.models.trusted import check_part, check_target

_RESOLVERS = (*OWN_RESOLVERS, "oc.env", "hydra", "now")
_SWEEPER_KEYS = ("params", "arms", "n_trials", "seed", "startup_trials", "warmup_epochs", "at_once")
# Not setup, python or further sbatch options: those are commands.
_LAUNCHER_KEYS = (
    "n_jobs", "batch_size", "pre_dispatch", "verbose", "timeout_min", "cpus_per_task", "gpus_per_node",
    "tasks_per_node", "mem_gb", "nodes", "name", "stderr_to_stdout", "partition", "qos", "constraint", "exclude",
    "gres", "cpus_per_gpu", "gpus_per_task", "mem_per_gpu", "mem_per_cpu", "account",
    "signal_delay_s", "max_num_timeout", "array_parallelism",
)  # fmt: skip
_LAUNCHER_VALUE = re.compile(r"[\w.:,=@${}\[\]-]*")  # a line break would begin a command in the script of a Slurm job
_OVERRIDES = ("hydra.sweeper.params.", "hydra.sweeper.arms.")
_PARTS = ("model.network", "loss")
# An option of a group is a file of the search path: no way leads out of it.
_OPTION = re.compile(r"(?:(?:override|optional) )*/?[\w@./-]*")
_PATH_KEYS = ("output_dir", "cache_dir")


def check_study(content: Mapping[str, Any]) -> None:
    """Raise InputError if a study names a class of one's own, an option outside conf/, or a command of Hydra."""
    check_interpolations(dict(content), _RESOLVERS)
    for name, value in _flat(content):
        if name.endswith("_target_") and not name.startswith(_OVERRIDES):
            check_target(name, str(value), REMEDY)
    for option in _options(content.get("defaults")):
        if not _OPTION.fullmatch(option) or ".." in option or "//" in option:
            raise InputError(f"defaults: '{option}' is not an option of a group in conf/; {REMEDY}")
    model = content.get("model")
    if isinstance(model, Mapping):
        check_part("model.network", model.get("network"), REMEDY)
    check_part("loss", content.get("loss"), REMEDY)
    sweeper = _check_hydra(content.get("hydra") or {})
    for key, value in (sweeper.get("params") or {}).items():
        _check_override(f"{key}={value}")
    for arm in (sweeper.get("arms") or {}).values():
        for override in arm if isinstance(arm, list) else [arm]:
            _check_override(str(override))


def _flat(setting: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every value by its dotted name; a `_target_` that is no text counts as one value."""
    if isinstance(setting, Mapping) and not prefix.endswith("_target_"):
        for key, value in setting.items():
            yield from _flat(value, f"{prefix}.{key}".removeprefix("."))
    elif isinstance(setting, list):
        for value in setting:
            yield from _flat(value, prefix)
    else:
        yield prefix, setting


def _options(defaults: object) -> Iterator[str]:
    """The texts of a defaults list."""
    for entry in defaults if isinstance(defaults, list) else [defaults] if defaults else []:
        parts = [*entry.keys(), *entry.values()] if isinstance(entry, Mapping) else [entry]
        for part in parts:
            yield from map(str, part if isinstance(part, list) else [part])


def _check_hydra(hydra: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check the settings of Hydra itself; returns those of the sweeper."""
    sweeper, launcher = hydra.get("sweeper") or {}, hydra.get("launcher") or {}
    given = [
        *(f"hydra.{key}" for key in hydra if key not in ("sweeper", "launcher", "mode")),
        *(f"hydra.sweeper.{key}" for key in sweeper if key not in _SWEEPER_KEYS),
        *(f"hydra.launcher.{key}" for key, value in launcher.items() if not _is_resource(str(key), value)),
    ]
    if given:
        raise InputError(
            f"{given[0]} may run commands, so a study cannot set it; {REMEDY}, or give it on the command line"
        )
    return dict(sweeper)


def _is_resource(key: str, value: object) -> bool:
    return key in _LAUNCHER_KEYS and not isinstance(value, dict | list) and bool(_LAUNCHER_VALUE.fullmatch(str(value)))


def _check_override(override: str) -> None:
    key, value = key_of(override), override.partition("=")[2]
    group = key.partition("@")[0]
    if re.match(r"hydra\b", group.strip("/")) and group.strip("/") != "hydra/launcher":
        raise InputError(f"{override}: the settings of Hydra are the same for all jobs; give them on the command line")
    if "." not in group and group not in _PATH_KEYS and _leads_out(value):
        raise InputError(f"{override}: this is not an option of a group in conf/; {REMEDY}")
    if key.endswith("_target_"):
        for target in value.split(","):
            check_target(key, target.strip(), REMEDY)
    elif "_target_" in override:
        raise InputError(f"{override}: write a class as its own override, …._target_=CLASS; {REMEDY}")
    elif any(key == part or key.startswith(f"{part}.") for part in _PARTS):
        check_part(key, {key.rpartition(".")[2]: value}, REMEDY)


def _leads_out(value: str) -> bool:
    """Whether the value of a group is a path, or settings of its own, instead of the name of an option."""
    return ".." in value or "{" in value or re.search(r"(^|[,(\[\s'\"])/", value) is not None
