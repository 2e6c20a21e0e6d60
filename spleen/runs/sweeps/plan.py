"""The jobs of a multirun: from a study and a command line to one job folder each."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from spleen.config.checking.checks import check
from spleen.config.datasets import check_files_exist, complete, find_dataset
from spleen.config.identity import known_identity
from spleen.config.overrides import key_of, quoted
from spleen.config.parsing import parse
from spleen.config.schema import TrainConfig
from spleen.errors import InputError
from spleen.records.effect import has_effect
from spleen.system.process import collector_paused

_LONGEST_FOLDER_NAME = 120
_HASH_DIGITS = 8


@dataclass(frozen=True)
class Combination:
    """The overrides of one job, and those among them that distinguish it from the other jobs."""

    overrides: tuple[str, ...]
    distinguishing: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One job: its Hydra overrides and its folder."""

    overrides: tuple[str, ...]
    folder: Path
    identity: str | None
    """None if a file cannot be read; the job itself reports the error."""
    config: TrainConfig | None = None

    def launcher_overrides(self) -> list[str]:
        """The overrides for a launcher, including the folder, so that every process uses the same one.

        The runs that the job builds upon are those of the plan: outputs/latest soon means the job before it.
        """
        config = self.config
        built_upon = {} if config is None else {"init_from": config.init_from, "roi_from": config.roi_from}
        fixed = {key: quoted(run) for key, run in built_upon.items() if run is not None}
        kept = [override for override in self.overrides if key_of(override) not in fixed]
        place, name = quoted(self.folder.parent), quoted(self.folder.name)
        sources = [f"{key}={run}" for key, run in fixed.items()]
        return [*kept, *sources, f"hydra.sweep.dir={place}", f"hydra.sweep.subdir={name}"]


# From a command line to combinations --------------------------------------------------------------------------------


def combinations(
    parser: OverridesParser,
    params: Mapping[str, object],
    arms: Mapping[str, Sequence[str]],
    arguments: Sequence[str],
) -> list[Combination]:
    """Every combination of the values of `params`, for each of the `arms` if there are any.

    `params` maps keys to Hydra's sweep grammar (64,128 or choice(…) or range(…)), an arm is a list of overrides, and
    `arguments` are the command-line overrides, which replace those of a param or an arm for the same key.
    Raises InputError for a key that is in both the params and an arm.
    """
    shared = parser.parse_overrides([f"{key}={_written(value)}" for key, value in params.items()])
    given = parser.parse_overrides(list(arguments))
    swept_here = {_key(override) for override in given if override.is_sweep_override()}
    found: list[Combination] = []
    for name, arm in (arms or {"": []}).items():
        own = parser.parse_overrides(list(arm))
        if twice := {_key(override) for override in own} & {_key(override) for override in shared}:
            raise InputError(f"hydra.sweeper: {', '.join(twice)} is in both params and the arm '{name}'")
        varied = {_key(override) for override in (*shared, *own)} | swept_here
        merged = {_key(override): override for override in (*shared, *own, *given)}
        for values in itertools.product(*(list(_values(override)) for override in merged.values())):
            by_key = dict(zip(merged, values, strict=True))
            found.append(Combination(values, tuple(sorted(text for key, text in by_key.items() if key in varied))))
    return found


def _written(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _key(override: Override) -> str:
    """The key that an override sets: +key and ++key are the same as key; ~key (delete) is not."""
    return str(override.get_key_element()).lstrip("+")


def _values(override: Override) -> Iterator[str]:
    key = override.get_key_element()
    if override.is_delete():
        yield str(override.input_line)
    elif override.is_discrete_sweep():
        yield from (f"{key}={value}" for value in override.sweep_string_iterator())
    elif override.is_sweep_override():
        raise InputError(
            f"{override.input_line}: a sweep needs discrete values, such as {key}=1,2,3 or {key}=range(1,4); "
            "intervals are for a search"
        )
    else:
        yield f"{key}={override.get_value_element_as_str()}"


# From combinations to jobs ------------------------------------------------------------------------------------------


def plan(composed: Sequence[tuple[Combination, DictConfig]], in_study: bool, subdir_given: bool) -> list[Job]:
    """One job per distinct combination; `composed` has Hydra's whole configuration tree of each.

    In a study, jobs with the same identity are the same, and their folder is found by the suffix of its name. Otherwise
    jobs are the same only if their configurations are. `subdir_given` keeps the names set by hydra.sweep.subdir.
    Raises InputError for all problems with the settings of the jobs, before the first one starts.
    """
    jobs: dict[str, Job] = {}
    problems: dict[str, None] = {}
    for combination, tree in composed:
        known = _identify(tree)
        if known.problem:
            problems[known.problem] = None
            continue
        key = known.identity if in_study and known.identity else known.content
        if key in jobs:
            continue
        place = Path(tree.hydra.sweep.dir).absolute()
        name = str(tree.hydra.sweep.subdir) if subdir_given else job_folder(",".join(combination.distinguishing))
        if in_study:
            folder = _known_folder(place, key) or place / f"{name}-{key[:_HASH_DIGITS]}"
        else:
            taken = place / name in {job.folder for job in jobs.values()}
            folder = place / (f"{name}-{key[:_HASH_DIGITS]}" if taken else name)
        jobs[key] = Job(combination.overrides, folder, known.identity, known.config)
    if problems:
        raise InputError("\n".join(problems))
    return list(jobs.values())


@dataclass(frozen=True)
class _Identified:
    content: str
    """A hash of all settings, including those without effect on the result."""
    identity: str | None
    config: TrainConfig | None
    problem: str


def _identify(tree: DictConfig) -> _Identified:
    settings = OmegaConf.masked_copy(tree, [str(key) for key in tree if key != "hydra"])
    try:
        config = parse(settings)
    except InputError as error:
        return _Identified(_hash(OmegaConf.to_yaml(settings)), None, None, str(error))
    content = _hash(json.dumps(asdict(config), sort_keys=True))
    try:
        check(config)
        dataset = find_dataset(config)
        check_files_exist(config, dataset.cases)
        config = complete(config, dataset)
        if config.model.dimensions == 3:  # imports PyTorch
            from spleen.config.patches import complete_patches

            config = complete_patches(config, dataset.cases, quiet=True)
        return _Identified(content, known_identity(config, dataset.cases), config, "")
    except InputError as error:
        return _Identified(content, None, None, str(error))


# They have no part in the network, the loss and the augmentation.
_NOT_BUILT = ("seed", "lr", "optimiser", "schedule", "fold", "split", "epochs", "search")


def check_parts(jobs: Sequence[Job], on_this_machine: bool) -> None:
    """Build what the jobs train, so that a wrong setting of any of them is told before the first one starts.

    `on_this_machine`: the jobs run here, so that their hardware can be checked, too.
    Raises InputError for all problems.
    """
    with collector_paused():
        from spleen.config.factory import build_fit_settings, build_parts

    seen: set[str] = set()
    problems: dict[str, None] = {}
    for job in jobs:
        settings = asdict(job.config) if job.config else {}
        content = json.dumps({k: v for k, v in settings.items() if k not in _NOT_BUILT and has_effect(k)})
        if job.config is None or content in seen:
            continue
        seen.add(content)
        try:
            if on_this_machine:
                build_fit_settings(job.config)
            build_parts(job.config)
        except InputError as error:
            problems[str(error)] = None
    if problems:
        raise InputError("\n".join(problems))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _known_folder(place: Path, job_identity: str) -> Path | None:
    """The folder of the same job in an earlier multirun, possibly with another prefix."""
    return next(iter(sorted(place.glob(f"*-{job_identity[:_HASH_DIGITS]}"))), None)


def job_folder(overrides: str) -> str:
    """A folder name from a job's overrides: of paths the last name only, and short enough for any file system."""
    name = ",".join(map(_without_folders, overrides.split(",")))
    name = re.sub(r"[^\w.,=+\-\[\]]", "_", name) or "defaults"
    if len(name) <= _LONGEST_FOLDER_NAME:
        return name
    return f"{name[: _LONGEST_FOLDER_NAME - _HASH_DIGITS - 1]}-{_hash(overrides)[:_HASH_DIGITS]}"


def _without_folders(override: str) -> str:
    key, _, value = override.partition("=")
    last = value.strip("/'\"").rsplit("/", 1)[-1]
    return f"{key}={last}" if "/" in value else override
