"""The page of a run: self-contained HTML from its run folder alone."""

import base64
import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from spleen.config.schema import size_text
from spleen.evaluation.evaluate import TOLERANCE_MM
from spleen.records.effect import PATH_ARGUMENTS
from spleen.records.folder import RunFolder
from spleen.records.settings import learning_rate_text
from spleen.reporting.html import render_page
from spleen.reporting.numbers import format_number
from spleen.runs.report.axis_plots import axis_plots
from spleen.runs.report.data_facts import audit, geometry_facts, geometry_table, split_facts
from spleen.runs.report.record import RunRecord, read_record
from spleen.runs.report.reproduction import HIDDEN, command, compare_with_defaults
from spleen.runs.report.run_plots import bland_altman_plots, histogram_plot, loss_plot, rate_plot, score_plot
from spleen.runs.report.score_facts import SPLIT_WORDS, case_table, class_table, duration, tiles
from spleen.system.files import write_text

_JPEG_QUALITY = 88
_LEVELS = {"finished": "good", "failed": "error"}


def write_page(run_folder: Path) -> None:
    """Write the page as report.html into the run folder; raises as `to_page`, and OSError."""
    write_text(RunFolder(run_folder).report, to_page(run_folder))


def to_page(run_folder: Path, identifying: bool = False) -> str:
    """The page of a run as HTML text, from the files of its folder, of any version and in any state.

    Unless `identifying`, it holds no path and nothing of the images' headers; case_ids and class names it does hold.
    Raises InputError for a folder without a readable config.yaml.
    """
    record = read_record(run_folder.resolve())  # outputs/latest is a link
    settings = compare_with_defaults(record.config, identifying)
    title = ", ".join(record.class_names) or str(_nested(record.config, "data", "organ") or "training")
    return render_page(
        "run.html.jinja",
        kind="training run",
        title=title,
        about=_about(record, identifying),
        level=_LEVELS.get(record.state, "warning"),
        state=record.state,
        failure=record.failure if identifying else None,
        tiles=tiles(record),
        curves=[each for each in (loss_plot(record), score_plot(record), rate_plot(record)) if each],
        class_table=class_table(record),
        case_table=case_table(record) if record.rows else None,
        has_surface="hausdorff95_mm" in {name for row in record.rows for name in row.scores},
        tolerance_mm=TOLERANCE_MM,
        agreement_split=SPLIT_WORDS[record.headline_split],
        agreement=bland_altman_plots(record, record.headline_split),
        overlays=_picture(record.overlays),
        along_axis=axis_plots(record),
        has_blocks=record.split.get("kind") == "slice_blocks",
        histogram=_histogram(record),
        geometry=geometry_facts(record) + split_facts(record, identifying),
        geometry_table=geometry_table(record),
        audit=audit(record),
        command=command(record.config, identifying),
        has_hidden_paths=not identifying and any(each.value == HIDDEN for each in settings if each.differs),
        changed=[each for each in settings if each.differs],
        settings=settings,
        environment=_environment(record),
        missing=record.missing,
    )


def _about(record: RunRecord, identifying: bool) -> list[str]:
    config = record.config
    size = config.get("img_size")
    parts = [
        str(_nested(config, "model", "name")),
        f"{config.get('axis')} slices",
        size_text(size) if isinstance(size, int | str) else "",
        f"learning rate {learning_rate_text(config.get('lr'))}",
        _duration(config),
        f"seed {config.get('seed')}",
        f"study {config.get('study')}",
    ]
    if identifying:
        parts.append(str(record.folder))
    elif not any(key in record.folder.name for key in PATH_ARGUMENTS):
        parts.append(record.folder.name)
    return list(filter(None, parts))


def _duration(config: Mapping[str, Any]) -> str:
    minutes = config.get("max_minutes")
    return f"{config.get('epochs')} epochs" if minutes is None else f"{minutes:g} minutes"


def _nested(tree: Any, *keys: str) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _picture(path: Path | None) -> str | None:
    """A figure as a data URL, as JPEG: a quarter of the size of its PNG."""
    if path is None:
        return None
    buffer = BytesIO()
    try:
        with Image.open(path) as picture:
            picture.convert("RGB").save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0, optimize=True)
    except OSError:  # a damaged figure
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _histogram(record: RunRecord) -> dict[str, object] | None:
    histogram = record.data.get("histogram")
    if not histogram:
        return None

    def beyond(part: str) -> str:
        counts = histogram[part]
        total = counts["below"] + counts["above"] + sum(counts["counts"])
        if not total:
            return "none"
        below, above = (100 * counts[side] / total for side in ("below", "above"))
        return f"{below:.1f} % at the lower end or below, {above:.1f} % at the upper end or above"

    return {
        "plot": histogram_plot(histogram),
        "case_id": histogram["case_id"],
        "planes": histogram["planes"],
        "window": f"{format_number(histogram['low'])} to {format_number(histogram['high'])} {histogram['unit']}",
        "image": beyond("image"),
        "organ": beyond("organ"),
    }


def _environment(record: RunRecord) -> list[tuple[str, str]]:
    """Timings, memory, hardware, versions, commit."""
    summary = record.summary
    facts: list[tuple[str, str]] = []
    for key, name in (("wall_seconds", "Wall time"), ("seconds_to_first_step", "Until the first step")):
        if _is_number(summary.get(key)):
            facts.append((name, duration(summary[key])))
    if _is_number(speed := _nested(summary, "train", "slices_per_second")):
        facts.append(("Throughput", f"{format_number(speed)} training slices per second"))
    if _is_number(summary.get("peak_memory_mb")):
        facts.append(("Peak memory", f"{summary['peak_memory_mb']:,.0f} MiB"))
    if summary.get("precision"):
        facts.append(("Precision", str(summary["precision"])))
    if summary.get("resumed"):
        facts.append(("Resumed", f"{summary['resumed']} times"))
    hardware = summary.get("hardware") or {}
    named = {"processor": "Processor", "cores": "Cores", "threads": "Threads", "gpu": "GPU", "system": "System"}
    facts += [(name, str(hardware[key])) for key, name in named.items() if hardware.get(key)]
    if hardware.get("memory_gib"):
        facts.append(("Memory", f"{hardware['memory_gib']} GiB"))
    if versions := summary.get("versions"):
        facts.append(("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    if commit := summary.get("git_commit"):
        clean = str(commit).removesuffix("-dirty")
        facts.append(("Commit", clean + (", with uncommitted changes" if clean != commit else "")))
    return facts


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
