"""The results of a study as files: a page, Markdown with figures, CSV for further analysis, LaTeX for a paper."""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from spleen.records.reading import Setting
from spleen.records.settings import setting_text
from spleen.reporting.csv_text import to_csv
from spleen.reporting.outputs import text_writer, write_outputs
from spleen.reporting.tables import scientific, to_markdown
from spleen.runs.results.arms import Arm
from spleen.runs.results.results import StudyResults
from spleen.runs.results.size_and_rate import size_and_rate
from spleen.runs.results.statistics import Score
from spleen.runs.results.text import (
    SELECTED,
    class_table,
    conclusions,
    count_names,
    counts,
    half_width,
    listing,
    shown_columns,
    table,
    title,
)
from spleen.system.files import write_text

CURVES_NAME, HEAT_MAP_NAME = "validation_curves.png", "test_dice_by_size_and_rate.png"
_CURVES, _HEAT_MAP = "--plots, curves", "--plots, heat map"

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: rf"\{character}" for character in "&%$#_{}"},
}


def output_files(
    markdown: Path | None = None,
    csv: Path | None = None,
    latex: Path | None = None,
    plots: Path | None = None,
    html: Path | None = None,
) -> dict[str, Path | None]:
    """The files of the options of `spleen results`, by option; those of the folder `plots` first, to be linked to."""
    return {
        _CURVES: None if plots is None else plots / CURVES_NAME,
        _HEAT_MAP: None if plots is None else plots / HEAT_MAP_NAME,
        "--markdown": markdown,
        "--csv": csv,
        "--latex": latex,
        "--html": html,
    }


def write_results(study: StudyResults, outputs: Mapping[str, Path | None]) -> None:
    """Write the files of `output_files` and print their names; no heat map unless both image size and rate vary.

    Raises InputError at the end, naming the files that could not be written.
    """
    drawn: list[Path] = []

    def draw_curves(path: Path) -> None:
        from spleen.runs.results.curves import draw_validation_curves

        draw_validation_curves(study, path)
        drawn.append(path)

    def draw_rates(path: Path) -> None:
        from spleen.runs.results.heat_map import draw_heat_map

        draw_heat_map(study, path)
        drawn.append(path)

    has_heat_map = size_and_rate(study.arms) is not None
    write_outputs(
        {option: path for option, path in outputs.items() if option != _HEAT_MAP or has_heat_map},
        {
            _CURVES: draw_curves,
            _HEAT_MAP: draw_rates,
            "--markdown": lambda path: write_text(path, as_markdown(study, _links(drawn, path))),
            "--csv": text_writer(lambda: as_csv(study)),
            "--latex": text_writer(lambda: as_latex(study)),
            "--html": lambda path: write_text(path, _page(study, path)),
        },
    )


def _page(study: StudyResults, path: Path) -> str:
    from spleen.runs.results.page import to_page

    return to_page(study, path)


def _links(pictures: Sequence[Path], markdown: Path) -> list[str]:
    """The figures relative to the Markdown file, so that both can be moved or committed together."""
    start = markdown.parent.resolve()
    return [quote(Path(os.path.relpath(picture.resolve(), start)).as_posix()) for picture in pictures]


def as_markdown(study: StudyResults, pictures: Sequence[str] = ()) -> str:
    """The table, its conclusions, links to the figures, and the runs that are not in the table."""
    parts = [f"**{_markdown_text(title(study))}**", to_markdown(*table(study))]
    columns, rows = class_table(study)
    parts += [to_markdown(columns, rows)] if rows else []
    parts += [_markdown_text(line) for line in conclusions(study)]
    parts += [f"![{Path(link).stem.replace('_', ' ')}]({link})" for link in pictures]
    for heading, lines in listing(study):
        parts.append("\n".join([f"{heading}:", "", *(f"- {_markdown_text(line)}" for line in lines)]))
    return "\n\n".join(parts) + "\n"


def _markdown_text(text: str) -> str:
    return re.sub(r"([*_<>\[\]|])", r"\\\1", text)


def as_csv(study: StudyResults) -> str:
    """One row per arm: every differing setting by key, counts, and means with the bounds of their 95 % intervals.

    With several classes, the test Dice of each is a column named test_dice:CLASS.
    """
    scores: dict[str, Callable[[Arm], Score]] = {
        "val_dice": lambda arm: arm.val_dice,
        "test_dice": lambda arm: arm.test_dice,
        "test_jaccard": lambda arm: arm.test_jaccard,
        **{f"test_dice:{name}": partial(_of_class, name=name) for name in _classes(study)},
    }
    names = [f"{name}{end}" for name in scores for end in ("", "_low", "_high")]
    rows: list[list[object]] = [
        ["selected", *(column.key for column in study.columns), *count_names(study), *names, "minutes"]
    ]
    for arm in study.arms:
        numbers: list[float | None] = []
        for score in (of_arm(arm) for of_arm in scores.values()):
            numbers += [score.mean, *((score.interval.low, score.interval.high) if score.interval else (None, None))]
        settings = [_plain(arm.settings.get(column.key)) for column in study.columns]
        selected = "true" if arm is study.selected else "false"
        rows.append([selected, *settings, *counts(study, arm), *map(_full, [*numbers, arm.minutes])])
    return to_csv(rows)


def _classes(study: StudyResults) -> list[str]:
    return list(dict.fromkeys(name for arm in study.arms for name in arm.test_dice_by_class))


def _of_class(arm: Arm, name: str) -> Score:
    return arm.test_dice_by_class.get(name, Score(math.nan, None, 0))


def _plain(value: Setting) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else setting_text(value)


def _full(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.9g}"


def as_latex(study: StudyResults) -> str:
    r"""A table for a paper: needs \usepackage{booktabs}; the best value of each score is bold.

    With several classes, a second table has the test Dice of each.
    """
    shown, _ = shown_columns(study)
    spread = r" $\pm$ 95\,\%" if study.over == "runs" else r" [95\,\% interval]"
    headings = [*(column.title for column in shown), *count_names(study), "val Dice", "test Dice", "test Jaccard"]
    cells = [escape_latex(heading[0].upper() + heading[1:]) for heading in headings]
    cells[-2] += spread if any(arm.test_dice.interval for arm in study.arms) else ""
    textual = [any(isinstance(arm.settings.get(column.key), str) for arm in study.arms) for column in shown]
    alignment = "".join("l" if text else "r" for text in textual) + "r" * (len(cells) + 1 - len(shown))
    best = [max(map(_shown, column)) for column in zip(*map(_scores, study.arms), strict=True)]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_caption(study)}}}",
        r"  \label{tab:results}",
        rf"  \begin{{tabular}}{{{alignment}}}",
        r"    \toprule",
        rf"    {' & '.join([*cells, 'Minutes'])} \\",
        r"    \midrule",
        *(f"    {' & '.join(_latex_row(study, arm, best))} \\\\" for arm in study.arms),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join([*lines, *_latex_classes(study)]) + "\n"


def _latex_classes(study: StudyResults) -> list[str]:
    """The table by class: one row per arm, one column per class."""
    names = _classes(study)
    if not names:
        return []
    scores = [[_of_class(arm, name) for name in names] for arm in study.arms]
    best = [max(map(_shown, column)) for column in zip(*scores, strict=True)]
    rows = []
    for arm, of_arm in zip(study.arms, scores, strict=True):
        cells = [
            _latex_score(score, high) + _latex_spread(study, score) for score, high in zip(of_arm, best, strict=True)
        ]
        mark = rf"\textsuperscript{{{SELECTED}}}" if arm is study.selected else ""
        rows.append(" & ".join([escape_latex(arm.label) + mark, *cells]))
    return [
        r"\begin{table}",
        r"  \centering",
        r"  \caption{Test Dice by class.}",
        r"  \label{tab:results_by_class}",
        rf"  \begin{{tabular}}{{l{'r' * len(names)}}}",
        r"    \toprule",
        rf"    {' & '.join(['Arm', *map(escape_latex, names)])} \\",
        r"    \midrule",
        *(rf"    {row} \\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]


def _latex_score(score: Score, best: str) -> str:
    text = _shown(score)
    return rf"\textbf{{{text}}}" if text == best and text else text or "--"


def _caption(study: StudyResults) -> str:
    text = "Scores per case on the file's own grid."
    if study.selected is None:
        return escape_latex(f"{text} Nothing was validated, so no arm is chosen.")
    chosen = f"Arms are chosen by validation Dice; the chosen one is marked {SELECTED}"
    return escape_latex(f"{text} {chosen}, and its test Dice is the number to report.")


def _latex_row(study: StudyResults, arm: Arm, best: Sequence[str]) -> list[str]:
    shown, _ = shown_columns(study)
    settings = [_latex_setting(column.key, arm.settings.get(column.key)) for column in shown]
    if arm is study.selected and settings:
        settings[0] += rf"\textsuperscript{{{SELECTED}}}"
    scores = [_latex_score(score, highest) for score, highest in zip(_scores(arm), best, strict=True)]
    scores[1] += _latex_spread(study, arm.test_dice)
    return [*settings, *map(str, counts(study, arm)), *scores, f"{arm.minutes:.1f}"]


def _scores(arm: Arm) -> tuple[Score, Score, Score]:
    return arm.val_dice, arm.test_dice, arm.test_jaccard


def _shown(score: Score) -> str:
    """Four decimals; scores that round to the same text are equally good."""
    return "" if math.isnan(score.mean) else f"{score.mean:.4f}"


def _latex_spread(study: StudyResults, score: Score) -> str:
    if score.interval is None:
        return ""
    if study.over == "runs":
        return rf" $\pm$ {half_width(score):.4f}"
    return f" [{score.interval.low:.4f}, {score.interval.high:.4f}]"


def _latex_setting(key: str, value: Setting) -> str:
    if key != "lr" or isinstance(value, str | bool) or not value:
        return escape_latex(setting_text(value))
    mantissa, exponent = scientific(value).split("e")
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if mantissa == "1" else rf"${mantissa} \times {power}$"


def escape_latex(text: str) -> str:
    """The text with LaTeX's special characters escaped."""
    return "".join(_ESCAPED.get(character, character) for character in text)
