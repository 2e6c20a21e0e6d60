"""Histograms of the whole image, the body and the organ: what page and picture draw of them."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from spleen.exploration.facts.intensity import Histogram, IntensityFacts
from spleen.reporting.figures import LABEL_COLOURS
from spleen.reporting.numbers import format_number

LEAST_LOG = 0.5
"""Lower end of a logarithmic count, so that a single voxel has a height."""
_COLOURS = {"image": "#5b7fa6", "body": "#9aa4b1", "organ": LABEL_COLOURS[0]}


@dataclass(frozen=True)
class HistogramPanel:
    """One histogram, and what stands at its axes."""

    part: Literal["image", "body", "organ"]
    title: str
    histogram: Histogram
    value_label: str
    count_label: str
    is_logarithmic: bool
    """Counts on a logarithmic scale: single outliers beside millions of voxels of air."""


def histogram_panels(facts: IntensityFacts) -> list[HistogramPanel]:
    """The panels of one image: whole, body, and organ where there is one."""
    unit = "HU" if facts.modality == "CT" else ""
    panels = [
        _panel("image", "whole image", facts.whole_histogram, unit, is_logarithmic=True),
        _panel("body", f"body {facts.body_rule}", facts.body_histogram, unit),
    ]
    if facts.organ_histogram is not None:
        panels.append(_panel("organ", "organ", facts.organ_histogram, unit))
    return panels


def _panel(
    part: Literal["image", "body", "organ"], title: str, histogram: Histogram, unit: str, is_logarithmic: bool = False
) -> HistogramPanel:
    width = f"{format_number(histogram.bin_width)} {unit}".strip()
    count_label = f"voxels per {width}" + (", logarithmic" if is_logarithmic else "")
    return HistogramPanel(part, title, histogram, unit or "intensity", count_label, is_logarithmic)


def draw_histogram(axes: Axes, panel: HistogramPanel, whose: str) -> None:
    """Draw one histogram with counts and units at its axes."""
    histogram = panel.histogram
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    baseline = LEAST_LOG if panel.is_logarithmic else 0.0
    axes.stairs(np.maximum(histogram.counts, baseline), edges, baseline=baseline, fill=True, color=_COLOURS[panel.part])
    if panel.is_logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(LEAST_LOG, 2 * max(histogram.counts))
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, 1.05 * (max(histogram.counts) or 1))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlim(histogram.low, histogram.high)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: format_number(value))
    axes.set_title(f"{panel.title}{whose}", fontsize=9, loc="left")
    axes.set_xlabel(panel.value_label, fontsize=8, labelpad=2)
    axes.set_ylabel(panel.count_label, fontsize=8)
    axes.tick_params(labelsize=7.5)
    axes.spines[["top", "right"]].set_visible(False)


def count_ticks(panel: HistogramPanel) -> list[int]:
    """Round counts for the axis: powers of ten on a logarithmic one, else from 0 in even steps."""
    top = max(panel.histogram.counts) or 1
    if panel.is_logarithmic:
        powers = range(math.floor(math.log10(top)) + 1)
        return [10**power for power in powers[:: math.ceil(len(powers) / 5)]]
    step = next(step for power in range(20) for step in (10**power, 2 * 10**power, 5 * 10**power) if top <= 4 * step)
    return list(range(0, top + 1, step))
