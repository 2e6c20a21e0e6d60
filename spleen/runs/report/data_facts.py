"""Geometry and split of a run for its page, and what can be checked of the split afterwards."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from spleen.reporting.tables import Cell
from spleen.runs.report.record import RunRecord
from spleen.runs.report.score_facts import SPLIT_WORDS, Table

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Check:
    """One point of the audit; `level` is the style of its badge."""

    level: str
    verdict: str
    text: str


def geometry_facts(record: RunRecord) -> list[tuple[str, str]]:
    """What all cases share, or their ranges."""
    cases: Sequence[Mapping[str, Any]] = record.data.get("cases", ())
    if not cases:
        return []
    sizes = [(case["slices"], *case["plane_voxels"]) for case in cases]
    facts = [
        ("Cases", str(len(cases))),
        ("Slicing axis", f"{cases[0]['axis']}, by the affine"),
        ("Slices × rows × columns", _range(sizes)),
        ("Spacing in mm", _range([case["spacing_mm"] for case in cases])),
        ("Network input in pixels", _range([case["network_pixels"] for case in cases])),
        ("Slices with the organ", _range([[case["foreground_slices"]] for case in cases])),
    ]
    totals = {part: sum(case["split_slices"][part] for case in cases) for part in (*_SPLITS, "guard")}
    words = [f"{count} {SPLIT_WORDS.get(part, 'in guard gaps')}" for part, count in totals.items() if count]
    return [*facts, ("Slices by split", ", ".join(words))]


def _range(rows: Sequence[Sequence[float]]) -> str:
    """Each number as it is where all cases agree, otherwise from the smallest to the largest."""
    parts = []
    for values in zip(*rows, strict=True):
        low, high = min(values), max(values)
        parts.append(f"{low:.5g}" if low == high else f"{low:.5g}–{high:.5g}")
    return " × ".join(parts)


def geometry_table(record: RunRecord) -> Table | None:
    """One row for each of several cases."""
    cases = record.data.get("cases", ())
    if len(cases) < 2:
        return None
    rows: list[list[Cell]] = [
        [
            case["case_id"],
            next((SPLIT_WORDS[part] for part in _SPLITS if case["split_slices"][part]), "none"),
            case["slices"],
            " × ".join(map(str, case["plane_voxels"])),
            " × ".join(f"{each:.4g}" for each in case["spacing_mm"]),
            " × ".join(map(str, case["network_pixels"])),
            case["foreground_slices"],
        ]
        for case in cases
    ]
    return ["case", "split", "slices", "plane, voxels", "spacing, mm", "network input, pixels", "with organ"], rows


def split_facts(record: RunRecord, identifying: bool) -> list[tuple[str, str]]:
    """How the data were split, and what was left out."""
    split, config = record.split, record.config.get("split", {})
    if split.get("kind") == "slice_blocks":
        return [
            ("Split", f"blocks of consecutive slices along the {split.get('axis')} axis"),
            ("Guard gap", f"{split.get('guard_mm')} mm between training and held-out slices"),
        ]
    if split.get("kind") != "cases":
        return []
    fold = split.get("fold")
    facts = [
        ("Split", "whole cases" + ("" if fold is None else f", fold {fold}")),
        ("Cases by split", ", ".join(f"{len(split.get(part, ()))} {SPLIT_WORDS[part]}" for part in _SPLITS)),
        ("Split seed", str(split.get("seed", config.get("seed")))),
    ]
    if skipped := split.get("skipped"):
        reasons = "; ".join(f"{case}: {reason}" for case, reason in skipped.items())
        facts.append(("Skipped cases", reasons if identifying else f"{len(skipped)}: {', '.join(skipped)}"))
    return facts


def audit(record: RunRecord) -> list[Check]:
    """Checks of the recorded split, and how far the scores reach."""
    match record.split.get("kind"):
        case "slice_blocks":
            return list(_audit_slices(record))
        case "cases":
            return list(_audit_cases(record))
    return []


def _audit_slices(record: RunRecord) -> Iterator[Check]:
    spacing = {case["case_id"]: case["spacing_mm"][0] for case in record.data.get("cases", ())}
    for case_id, parts in record.split.get("cases", {}).items():
        yield _overlap({part: parts.get(part, ()) for part in (*_SPLITS, "guard")}, "slice")
        held_out, training = [*parts.get("val", ()), *parts.get("test", ())], parts.get("train", ())
        if held_out and training and case_id in spacing:
            nearest = min(abs(one - other) for one in held_out for other in training)
            distance, wanted = nearest * spacing[case_id], float(record.split.get("guard_mm", 0))
            wide = distance > wanted
            text = f"the nearest training slice is {distance:.3g} mm from a held-out one; asked for: over {wanted:g} mm"
            yield Check("good" if wide else "error", "passed" if wide else "failed", f"Guard gap: {text}.")
    yield Check(
        "note",
        "note",
        "Training and held-out slices are of the same volume: the scores tell how well the rest of this volume is "
        "segmented, not another patient.",
    )


def _audit_cases(record: RunRecord) -> Iterator[Check]:
    yield _overlap({part: record.split.get(part, ()) for part in _SPLITS}, "case")
    yield Check("good", "passed", "No image is in two splits: identical voxels would have stopped the run.")
    data = record.config.get("data", {})
    if isinstance(data, dict) and data.get("groups"):
        yield Check("good", "passed", "Cases of one group, such as a patient, are in one split (data.groups).")
    else:
        yield Check(
            "warning",
            "not known",
            "No groups were given (data.groups): two scans of one patient may be in two splits.",
        )
    if not record.split.get("test"):
        yield Check("warning", "note", "There is no test split: validation scores are those of the chosen epoch.")


def _overlap(parts: Mapping[str, Sequence[object]], what: str) -> Check:
    shared = [len(set(parts[one]) & set(parts[other])) for one, other in combinations(parts, 2)]
    if any(shared):
        return Check("error", "failed", f"{sum(shared)} {what}s are in two splits.")
    return Check("good", "passed", f"No {what} is in two splits.")
