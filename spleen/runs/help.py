"""The text of `spleen train --help`: usage, and the commented configuration."""

from pathlib import Path

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


def help_text(train: str) -> str:
    """Usage of the command `train`, the studies, the groups with their options, and the commented conf/train.yaml."""
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
        f"Groups (the files in {conf} explain the values of each)\n{groups}\n\n{_values(conf)}"
    )


def _options(group: Path) -> list[str]:
    return sorted(path.stem for path in group.glob("*.yaml"))


def _values(conf: Path) -> str:
    text = (conf / "train.yaml").read_text(encoding="utf-8")
    values = text[text.index("lr:") : text.index("# Below:")]
    return "Values\n" + "\n".join(f"  {line}".rstrip() for line in values.splitlines())
