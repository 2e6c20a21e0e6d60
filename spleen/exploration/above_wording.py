"""What is said of the voxels above a value, the same for terminal, page and picture."""

from collections.abc import Sequence

from spleen.exploration.facts.above import AboveFacts, VoxelPlace
from spleen.exploration.facts.case import CaseFacts
from spleen.reporting.numbers import format_number
from spleen.reporting.tables import Cell

Table = tuple[list[str], list[list[Cell]]]

_PLACE = ["voxel in the file", "right, anterior, superior (mm)"]


def above_title(facts: AboveFacts) -> str:
    """Such as "above 500,000"."""
    return f"above {format_number(facts.above)}"


def above_in_words(case: CaseFacts) -> list[tuple[str, str]]:
    """Name and value of the fact; empty where no value was asked for."""
    facts = case.above
    if facts is None:
        return []
    if facts.largest is None:
        highest = f"; the highest is {format_number(case.intensity.whole.maximum)}" if case.intensity else ""
        return [(above_title(facts), f"no voxel{highest}")]
    voxels = "1 voxel" if facts.n_voxels == 1 else f"{facts.n_voxels:,} voxels"
    components = "1 component" if facts.n_components == 1 else f"{facts.n_components:,} components"
    largest = facts.largest
    spans = ", ".join(
        str(first) if first == last else f"{first}–{last}"
        for first, last in zip(largest.first, largest.last, strict=True)
    )
    text = (
        f"{voxels} in {components}; the largest, of {largest.n_voxels:,}, spans voxels [{spans}] of the file, "
        f"centred at {_mm(largest.centre_mm)} mm (right, anterior, superior)"
    )
    return [(above_title(facts), text)]


def above_in_set(cases: Sequence[CaseFacts]) -> list[tuple[str, str]]:
    """Name and value of the fact for several cases; empty where no value was asked for."""
    asked = [case.above for case in cases if case.above is not None]
    if not asked:
        return []
    holding = [facts for facts in asked if facts.n_voxels]
    total = sum(facts.n_voxels for facts in holding)
    found = (
        f"in {len(holding)} of {len(asked)} cases, {total:,} in all" if holding else f"in none of {len(asked)} cases"
    )
    return [(above_title(asked[0]), f"such voxels {found}")]


def highest_voxels(facts: AboveFacts) -> Table:
    """The highest voxels of one case as columns and rows."""
    return ["value", *_PLACE], [[place.value, *_place(place)] for place in facts.highest]


def cases_above(cases: Sequence[CaseFacts]) -> Table:
    """The cases that hold voxels above the value, those with the highest voxel first."""
    holding = [(case.case_id, case.above) for case in cases if case.above is not None and case.above.n_voxels]
    holding.sort(key=lambda pair: -pair[1].highest[0].value)
    rows: list[list[Cell]] = [
        [case_id, facts.n_voxels, facts.n_components, facts.highest[0].value, *_place(facts.highest[0])]
        for case_id, facts in holding
    ]
    return ["case", "voxels", "components", "highest", *_PLACE], rows


def _place(place: VoxelPlace) -> list[Cell]:
    return [", ".join(str(index) for index in place.voxel), _mm(place.position_mm)]


def _mm(position: Sequence[float]) -> str:
    return ", ".join(f"{mm:.1f}".replace("-", "−") for mm in position)
