"""The named studies: experiments/NAME/study.yaml, selected by experiment=NAME.

A study.yaml is an option of the group `experiment`: any configuration values, and the jobs under hydra.sweeper:
`params` for a full product of values, `arms` for individual lists of overrides.
"""

import difflib
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spleen.config.overrides import with_current_key
from spleen.errors import InputError
from spleen.records.renamed_keys import current_key, with_current_keys
from spleen.runs.sweeps.study_checks import check_study
from spleen.system.resources import experiments_folder

GROUP = "experiment"
FILE = "study.yaml"


def study_folders() -> list[Path]:
    """The folders of studies, in order of precedence: experiments/ of the current folder, then the packaged one."""
    return [Path("experiments").absolute(), experiments_folder()]


def study_names() -> list[str]:
    """The names of all studies, sorted."""
    return sorted(_files())


def _files() -> dict[str, Path]:
    """The file of each study."""
    return {path.parent.name: path for folder in reversed(study_folders()) for path in folder.glob(f"*/{FILE}")}


class _Permission:
    """Whether the studies of this process may name any class and command: only its command line can say so."""

    custom_code = False


def allow_custom_code(allowed: bool) -> None:
    """Let the studies of this process contain what `check_study` refuses, or not."""
    _Permission.custom_code = allowed


_registered: dict[str, tuple[Path, int, int, bool]] = {}
"""The file that Hydra has for a study, its time and size, and whether custom code was allowed when it was read."""


def register_studies() -> None:
    """Register the studies with Hydra. Unreadable ones are skipped; `no_such_study` reports the reason.

    What has not changed is not read again: every composition of a configuration comes here.
    """
    for name, path in _files().items():
        state = path.stat()
        read = (path, state.st_mtime_ns, state.st_size, _Permission.custom_code)
        if _registered.get(name) == read:
            continue
        try:
            node = read_study(name)
        except InputError:
            continue
        ConfigStore.instance().store(group=GROUP, name=name, node=node, package="_global_", provider="spleen")
        _registered[name] = read


def read_study(name: str) -> DictConfig:
    """A study as a configuration tree for Hydra, whose output folder has the study's name and no time stamp.

    Raises InputError for a file that is not YAML or not a mapping, and for what `check_study` refuses.
    """
    path = _files()[name]
    try:
        tree = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(tree, DictConfig):
        raise InputError(f"{path} contains no settings")
    if not _Permission.custom_code:
        try:
            check_study(cast(dict[str, Any], OmegaConf.to_container(tree)))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    folders = {"study": name, "hydra": {"sweep": {"dir": "${output_dir}/${study}"}}}
    merged = OmegaConf.merge(folders, _with_current_keys(tree))
    assert isinstance(merged, DictConfig)
    return merged


def _with_current_keys(tree: DictConfig) -> DictConfig:
    """The study with every configuration key under its current name, also in its params and arms."""
    content = with_current_keys(cast(dict[str, Any], OmegaConf.to_container(tree)))
    sweeper = (content.get("hydra") or {}).get("sweeper") or {}
    if params := sweeper.get("params"):
        sweeper["params"] = {current_key(str(key)): value for key, value in params.items()}
    if arms := sweeper.get("arms"):
        sweeper["arms"] = {name: [with_current_key(str(override)) for override in arm] for name, arm in arms.items()}
    return OmegaConf.create(content)


def study_question(name: str) -> str:
    """The question of a study: the first comment line of its file; none of a file that cannot be read."""
    try:
        first = _files()[name].read_text(encoding="utf-8").splitlines()[:1]
    except (OSError, UnicodeDecodeError):  # `no_such_study` tells it to who chooses the study
        return ""
    return first[0].removeprefix("#").strip() if first and first[0].startswith("#") else ""


def no_such_study(name: str) -> str:
    """The error message for a study that does not exist or whose file cannot be read."""
    names = study_names()
    if name in names:
        try:
            read_study(name)
        except InputError as error:
            return str(error)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{GROUP}={name}: no such study; available: {', '.join(names)} (experiments/NAME/{FILE}).{hint}"


def chosen_study(arguments: list[str]) -> str | None:
    """The study selected on the command line. Raises InputError for more than one."""
    chosen = [argument.split("=", 1)[1] for argument in arguments if argument.lstrip("+").startswith(f"{GROUP}=")]
    if not chosen or chosen[-1] in ("", "null"):
        return None
    if len(chosen) > 1 or any(sign in chosen[0] for sign in ",()"):
        raise InputError(f"{GROUP} takes one study at a time; got {', '.join(chosen)}")
    return chosen[0]
