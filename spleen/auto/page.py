"""What a search tells at its end, on the terminal and as a page: what it chose, why, and how to use and repeat it."""

import shlex
from dataclasses import dataclass

from spleen.auto.record import AutoRecord
from spleen.auto.session import Session
from spleen.errors import InputError
from spleen.models.trusted import check_network_setting
from spleen.reporting.html import render_page
from spleen.reporting.tables import Cell
from spleen.runs.results.page import to_page as study_page
from spleen.system.files import write_text
from spleen.system.resources import train_command

PAGE, STUDY_PAGE = "auto.html", "study.html"
_COLUMNS = ["run", "minutes", "val Dice", "weight"]


@dataclass(frozen=True)
class Commands:
    """Command lines that can be pasted."""

    train: tuple[str, ...]
    """One for each view; they train what was chosen once more."""
    predict: str


def commands(session: Session) -> Commands:
    """How to train the chosen views again, and how to predict with them."""
    record, trains = session.record, []
    for name in record.views:
        own = [each for each in record.runs[name] if each not in ("study=auto", "score_test=false")]
        trains.append(f"{train_command()} {shlex.join(session.overrides(*own))}")
    runs = shlex.join(str(session.folder / name) for name in record.views)
    weights = ",".join(f"{weight:g}" for weight in record.views.values())
    ending = f" --weights {weights}" if len(record.views) > 1 else ""
    if _has_own_network(session):
        ending += " --allow-custom-code"
    return Commands(tuple(trains), f"spleen predict {runs} IMAGE.nii.gz -o MASK.nii.gz{ending}")


def _has_own_network(session: Session) -> bool:
    """Whether the network is of a class that is not built from a checkpoint without being asked for."""
    record = session.record
    try:
        check_network_setting(session.config(*record.candidates[record.winner]).model.network, allow_custom_code=False)
    except InputError:
        return True
    return False


def to_text(session: Session) -> str:
    """The summary at the end of the command."""
    record, told = session.record, commands(session)
    minutes = sum(record.seconds.values()) / 60
    lines = [f"\nChosen in {minutes:.1f} of {record.minutes:g} minutes: {record.winner}", *map(_bullet, record.notes)]
    if record.val_dice is not None:
        lines.append(f"val Dice  {record.val_dice:.4f}   (it was chosen by this, so it is optimistic)")
    if record.test_dice:
        lines.append("test Dice " + ", ".join(f"{name} {_dice(record, name)}" for name in record.test_dice))
    if record.test_intervals:
        lines.append("          in brackets: 95 % intervals of the means over the test cases")
    lines += ["", "predict with", f"  {told.predict}", "train it again with", *(f"  {each}" for each in told.train)]
    return "\n".join([*lines, "", f"Everything is in {session.folder}: open {PAGE}"])


def write_pages(session: Session) -> None:
    """Write the page of the search, and that of all its runs as a study."""
    record, told = session.record, commands(session)
    finished = [name for name in record.runs if name not in record.failed]
    rows: list[list[Cell]] = [
        [name, record.seconds.get(name, 0.0) / 60, session.val_dice(name), record.views.get(name)] for name in finished
    ]
    page = render_page(
        "auto.html.jinja",
        kind="auto",
        title=session.folder.resolve().name,
        about=f"The best model in {record.minutes:g} minutes: {record.winner}",
        tiles=_tiles(record),
        notes=[*record.notes, *(f"{name} was left out: {why}" for name, why in record.failed.items())],
        settings=record.settings,
        columns=_COLUMNS,
        rows=rows,
        train=told.train,
        predict=told.predict,
        study=STUDY_PAGE,
    )
    write_text(session.folder / PAGE, page)
    write_text(session.folder / STUDY_PAGE, study_page(session.folder))


def _tiles(record: AutoRecord) -> list[tuple[str, str, str]]:
    """Name, value and interval of each Dice."""
    test = record.test_dice.items()
    tiles = [(f"test Dice, {name}", _number(dice), _interval(record, name)) for name, dice in test]
    return tiles if record.val_dice is None else [*tiles, ("validation Dice", f"{record.val_dice:.4f}", "")]


def _bullet(note: str) -> str:
    return f"  {note}"


def _dice(record: AutoRecord, name: str) -> str:
    interval = _interval(record, name)
    return _number(record.test_dice[name]) + (f" ({interval})" if interval else "")


def _interval(record: AutoRecord, name: str) -> str:
    """Such as 0.8685–0.8823; empty without one."""
    return "–".join(f"{bound:.4f}" for bound in record.test_intervals.get(name, ()))


def _number(dice: float | None) -> str:
    return "–" if dice is None else f"{dice:.4f}"
