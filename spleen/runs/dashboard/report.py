"""Saving a dashboard as a report on wandb's server, with the package wandb-workspaces."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import TYPE_CHECKING, Any

from spleen.errors import InputError
from spleen.runs.dashboard.plan import TEST, VALIDATION, Axis, Dashboard
from spleen.runs.tracking.mode import base_url, has_api_key
from spleen.runs.tracking.sync import FEW_RETRIES

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Report

# From low to high score: dark to light, as in the heat maps of the results.
_GRADIENT = (("#440154", 0), ("#21918c", 50), ("#fde725", 100))
_MOST_MAPS = 3
_MOST_BARS = 4


def check_can_save() -> None:
    """Raise InputError without the package wandb-workspaces, and without an API key."""
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise InputError(
            "a dashboard needs the package wandb-workspaces; install it with: pip install 'spleen[dashboard]'"
        )
    if not has_api_key():
        raise InputError(
            f"a dashboard needs a wandb API key for {base_url()}, but none is configured. "
            "Run `wandb login` once, or set WANDB_API_KEY"
        )


def save_report(dashboard: Dashboard) -> str:
    """Save the dashboard as a new report of its project; returns its address.

    Raises InputError if the server cannot be reached, refuses it, or has no such project.
    """
    check_can_save()
    for name, value in {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", **FEW_RETRIES}.items():
        os.environ.setdefault(name, value)
    import wandb

    with _server_errors_in_words():
        entity = dashboard.entity or wandb.Api().default_entity
    if not entity:
        raise InputError("the API key has no default entity; name one as ENTITY/PROJECT, or with logger.entity")
    report = build_report(dashboard, entity)
    with _server_errors_in_words():
        report.save()
        return str(report.url)


@contextmanager
def _server_errors_in_words() -> Iterator[None]:
    """Turn whatever wandb raises into an InputError: its errors have no common class."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the dashboard could not be saved at {base_url()}: {reason:.400}") from error


def build_report(dashboard: Dashboard, entity: str) -> "Report":
    """The report: an overview of all runs, their learning curves, and a comparison of the settings."""
    import wandb_workspaces.expr as expr
    import wandb_workspaces.reports.v2 as wr

    filters = [expr.Metric("Group").isin(list(dashboard.groups))] if dashboard.groups else []
    columns = [f"config:{_accessor(axis.key)}" for axis in dashboard.axes]
    runs = wr.Runset(
        entity=entity,
        project=dashboard.project,
        name=dashboard.title,
        filters=filters,
        order=[wr.OrderBy(wr.SummaryMetric(VALIDATION), ascending=False)],
        pinned_columns=["run:displayName", f"summary:{TEST}", f"summary:{VALIDATION}", *columns],
    )
    sections = {"Settings and scores": _comparison(dashboard), "Learning curves": _curves(), "Test slices": _slices()}
    blocks: list[Any] = [
        wr.MarkdownBlock(
            f"`{VALIDATION}` is the best validation Dice of a run, `{TEST}` the test Dice of that epoch, both per case "
            "on the native grid."
        )
    ]
    for heading, panels in sections.items():
        blocks += [wr.H2(heading), wr.PanelGrid(runsets=[runs], panels=panels)]
    return wr.Report(
        project=dashboard.project,
        entity=entity,
        title=dashboard.title[:128],
        description="Made by spleen dashboard",
        blocks=blocks,
        width="fluid",
    )


def _accessor(key: str) -> str:
    """A key of wandb's config as a column: a nested one has .value after its first part."""
    first, *rest = key.split(".")
    return ".".join([first, "value", *rest])


def _comparison(dashboard: Dashboard) -> list[Any]:
    """Parallel coordinates, a map of the score over each two numeric settings, and bars over the others."""
    import wandb_workspaces.reports.v2 as wr

    gradient = [wr.GradientPoint(color=color, offset=offset) for color, offset in _GRADIENT]
    parallel = wr.ParallelCoordinatesPlot(
        title="Settings and Dice",
        columns=[
            *(
                wr.ParallelCoordinatesPlotColumn(wr.Config(axis.key), display_name=_title(axis), log=axis.log)
                for axis in dashboard.axes
            ),
            wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(VALIDATION), display_name="validation Dice"),
            wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(TEST), display_name="test Dice"),
        ],
        gradient=gradient,
        layout=wr.Layout(w=24, h=10),
    )
    numeric = [axis for axis in dashboard.axes if axis.numeric]
    maps = [
        wr.ScatterPlot(
            title=f"Test Dice by {_title(x)} and {_title(y)}",
            x=wr.Config(x.key),
            y=wr.Config(y.key),
            z=wr.SummaryMetric(TEST),
            log_x=x.log,
            log_y=y.log,
            gradient=gradient,
        )
        for x, y in list(combinations(numeric, 2))[:_MOST_MAPS]
    ]
    bars = [
        wr.BarPlot(
            title=f"Test Dice by {_title(axis)}", metrics=[TEST], groupby=wr.Config(axis.key), groupby_aggfunc="mean"
        )
        for axis in dashboard.axes[:_MOST_BARS]
    ]
    return [parallel, *maps, *bars, wr.ParameterImportancePlot(with_respect_to=TEST), wr.RunComparer(diff_only="split")]


def _title(axis: Axis) -> str:
    return axis.key.rsplit(".", 1)[-1].replace("_", " ")


def _curves() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.LinePlot(title=title, x="epoch", y=[name])
        for title, name in (
            ("Validation Dice", "val/dice"),
            ("Validation loss", "val/loss"),
            ("Training loss", "train/loss"),
            ("Learning rate", "train/lr"),
        )
    ]


def _slices() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    return [wr.MediaBrowser(title="Best, median and worst test slice", media_keys=["test/slices"], num_columns=3)]
