"""Which layout of data is meant where only its files are named."""

from collections.abc import Sequence
from pathlib import Path

from spleen.config.overrides import key_of, parse_override
from spleen.data.layouts.registry import DATASET_READERS
from spleen.errors import InputError

_KIND_OF = {"data.image": "nifti", "data.images": "folder", "data.table": "table"}


def with_layout(overrides: Sequence[str]) -> list[str]:
    """The overrides with `data=…` added where it is left out: told by the keys, of data.root by what lies there.

    Raises InputError without any data, and for a data.root of no known layout, with what each lacks.
    """
    keys = list(map(key_of, overrides))
    if "data" in keys:
        return list(overrides)
    kinds = [kind for key, kind in _KIND_OF.items() if key in keys]
    if "data.root" in keys:
        given = next(override for override in overrides if key_of(override) == "data.root")
        parsed = parse_override(given)
        kinds = [_kind_of_root(Path(str(parsed.value() if parsed else given.partition("=")[2])).expanduser())]
    if not kinds:
        raise InputError(
            "spleen auto needs labelled data: data.root=FOLDER with a dataset.json, data.image=… data.label=…, "
            "data.images=… data.labels=…, data.table=…, or data=phantom for a synthetic CT"
        )
    return [f"data={kinds[0]}", *overrides]


def _kind_of_root(root: Path) -> str:
    problems = []
    for kind, read in DATASET_READERS.items():
        try:
            read(root, True)
        except InputError as error:
            problems.append(f"data={kind}: {error}")
        else:
            return kind
    raise InputError("\n".join([f"data.root={root} has none of the layouts with a dataset.json", *problems]))
