"""The text of `spleen train --help`: usage, and the commented configuration."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from spleen.errors import InputError
from spleen.runs.sweeps.studies import study_names, study_question
from spleen.system.resources import conf_folder

_USAGE = """\
Train a network that segments an organ slice by slice, and score it per case on the native grid.

  {train}                                              a synthetic CT, generated on the fly
  {train} lr=1e-4 img_size=512
  {train} data=nifti data.image=ct.nii.gz data.label=spleen.nii.gz axis=axial
  {train} -m axis=coronal,axial lr=1e-3,1e-4            one run for each combination
  {train} -m experiment=size_and_rate                  a named study; if repeated, only the missing jobs run
  {train} -m experiment=size_and_rate hydra/launcher=joblib   several jobs at a time; also {launchers}
  {train} trainer=ddp trainer.devices=2                one run on two GPUs, or two processes
  {train} resume=outputs/latest                        resume a run that was stopped or killed

Set any value below with key=value, a value inside a group with group.key=value, and choose an option with group=name.
--cfg job prints the composed configuration instead of running; --hydra-help explains Hydra's own flags.
"""


def help_text(train: str, arguments: Sequence[str] = ()) -> str:
    """Usage of the command `train`, the studies, the groups with their options, and the commented values.

    Those of a group are the values of the option that `arguments` choose, else of the one that the chosen data choose,
    else of the default. Raises InputError for an option that does not exist.
    """
    conf = conf_folder()
    launchers = [name for name in _options(conf / "hydra" / "launcher") if name != "joblib"]
    groups = "\n".join(
        f"  {folder.name}={'|'.join(_options(folder))}"
        for folder in sorted(path for path in conf.iterdir() if path.is_dir() and path.name != "hydra")
    )
    studies = "\n".join(f"  experiment={name:<15} {study_question(name)}" for name in study_names())
    return (
        f"{_USAGE.format(train=train, launchers=', '.join(launchers))}\n"
        f"Studies (experiments/NAME/study.yaml, here or shipped; any value can be given as well)\n{studies}\n\n"
        f"Groups (--help GROUP=NAME shows the values of another option)\n{groups}\n\n{_values(conf)}\n\n"
        f"{_values_of_groups(conf, arguments)}"
    )


def _options(group: Path) -> list[str]:
    return sorted(path.stem for path in group.glob("*.yaml"))


def _values_of_groups(conf: Path, arguments: Sequence[str]) -> str:
    """Every commented value of the chosen options, each with its whole key."""
    return "\n\n".join(
        "\n".join(
            [
                f"Values of {group}={name}",
                *_with_whole_keys(group, (conf / group / f"{name}.yaml").read_text(encoding="utf-8")),
            ]
        )
        for group, name in _chosen(conf, arguments).items()
    )


def _chosen(conf: Path, arguments: Sequence[str]) -> dict[str, str]:
    """The option of each group; InputError for one that does not exist."""
    text = (conf / "train.yaml").read_text(encoding="utf-8")
    chosen = {group: name for group, name in re.findall(r"^  - (\w+): (\w+)", text, re.M) if (conf / group).is_dir()}
    pairs = (argument.lstrip("+").partition("=") for argument in arguments)
    given = {group: name for group, _, name in pairs if group in chosen}
    for group, name in given.items():
        if name not in (options := _options(conf / group)):
            raise InputError(f"{group}={name}: no such option; available are {', '.join(options)}")
    chosen |= given
    for group, name in list(chosen.items()):
        text = (conf / group / f"{name}.yaml").read_text(encoding="utf-8")
        chosen |= dict(re.findall(r"^  - override /(\w+)\S*: (\w+)", text, re.M))
    return chosen | given  # the command line has the last word


def _with_whole_keys(group: str, text: str) -> Iterator[str]:
    """The lines of an option's file, without its defaults; keys below a section get the section's name."""
    section = ""
    for line in re.sub(r"^defaults:\n(  - .*\n)+", "", text).splitlines():
        entry = re.match(r"( *)(\w+):(.*)", line)
        if entry is None:
            yield f"  {line}".rstrip()
        elif entry[1]:
            yield f"  {group}.{section}.{entry[2]}:{entry[3]}"
        elif entry[3].strip():
            yield f"  {group}.{entry[2]}:{entry[3]}"
        else:
            section = entry[2]


def _values(conf: Path) -> str:
    text = (conf / "train.yaml").read_text(encoding="utf-8")
    values = text[text.index("lr:") : text.index("# Below:")]
    return "Values\n" + "\n".join(f"  {line}".rstrip() for line in values.splitlines())
