"""MkDocs hook: docs/reference/configuration.md from the comments in conf/. A value without a comment is a warning."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

log = logging.getLogger("mkdocs.hooks.configuration")

PAGE = "reference/configuration.md"
CONF = Path(__file__).parents[2] / "conf"
# In the order in which one would ask for them.
GROUPS = ("data", "intensity", "model", "loss", "schedule", "augment", "trainer", "logger", "hydra/launcher")
_LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^# ][^#]*))? *(?:#(?P<comment>.*))?$")


@dataclass(frozen=True)
class Value:
    """One value of a configuration file."""

    key: str
    default: str
    meaning: str


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page."""
    files.append(File.generated(config, PAGE, content=configuration_page()))
    return files


def configuration_page() -> str:
    """The values of conf/train.yaml, then each group with its options."""
    defaults = _defaults(CONF / "train.yaml")
    missing = {str(path.parent.relative_to(CONF)) for path in CONF.rglob("*.yaml")} - {".", *GROUPS}
    if missing:
        log.warning("groups of conf/ that docs/hooks/configuration.py does not name: %s", ", ".join(sorted(missing)))
    return "\n\n".join([_intro(), *_train_sections(), *(_group(name, defaults.get(name)) for name in GROUPS)])


def _intro() -> str:
    return (
        "# Configuration\n\n"
        "Every value can be set on the command line as `key=value` (`spleen train lr=1e-4 split.guard_mm=10`), and a "
        "group's option is chosen by `group=option` (`model=unet_wide`). This page is generated from the comments "
        "in `conf/`."
    )


def _train_sections() -> list[str]:
    """conf/train.yaml: its values on the top level, then each of its blocks."""
    values = list(_values(CONF / "train.yaml"))
    top = [value for value in values if "." not in value.key and value.default]
    blocks = [value for value in values if "." not in value.key and not value.default]
    sections = [f"## A run\n\n{_table(top)}"]
    for block in blocks:
        inside = [value for value in values if value.key.startswith(f"{block.key}.")]
        about = [_sentence(block.meaning)] if block.meaning else []
        sections.append("\n\n".join([f"## `{block.key}`", *about, _table(inside)]))
    return sections


def _group(name: str, default: str | None) -> str:
    """One tab for each option of the group, the default first."""
    paths = sorted((CONF / name).glob("*.yaml"), key=lambda path: (path.stem != default, path.stem))
    lines = [f"## `{name}`", f"Default: `{name}={default}`." if default else ""]
    for path in paths:
        values = list(_values(path))
        kind = [value.meaning for value in values if value.key == "kind"]
        about = _heading(path) or "".join(kind)
        table = _table([value for value in values if value.key != "kind"], name.replace("/", ".") + ".")
        body = "\n\n".join(part for part in (_sentence(about), table) if part)
        lines += [f'=== "{path.stem}"', "\n".join(f"    {line}".rstrip() for line in body.splitlines())]
    return "\n\n".join(line for line in lines if line)


def _defaults(path: Path) -> dict[str, str]:
    """The option that each group starts with."""
    text = path.read_text()
    return dict(re.findall(r"^  - (\w+): (\w+)", text[: text.index("\n\n")], flags=re.MULTILINE))


def _heading(path: Path) -> str:
    """The comment at the top of a file."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(re.sub(r"^(pip install .*)$", r"`\1`", line.removeprefix("#").strip()))
    return " ".join(lines)


def _values(path: Path) -> Iterator[Value]:
    """Each key of the file with its dotted name; a comment stands behind the value, or on lines of its own above."""
    above: list[str] = []
    parents: list[tuple[int, str]] = []
    lines = path.read_text().splitlines()
    start = next((number for number, line in enumerate(lines) if not line.startswith("#")), 0)
    for line in lines[start:]:
        if line.lstrip().startswith("#"):
            above.append(line.strip().removeprefix("#").strip())
            continue
        match = _LINE.match(line)
        if match is None:
            above = []
            continue
        indent, key, default = len(match["indent"]), match["key"], (match["value"] or "").strip()
        parents = [parent for parent in parents if parent[0] < indent]
        dotted = ".".join([*(name for _, name in parents), key])
        parents.append((indent, key))
        meaning = (match["comment"] or " ".join(above)).strip()
        above = []
        if dotted.split(".")[0] in ("defaults", "hydra"):
            continue
        if default and not meaning and key not in ("kind", "_target_"):
            log.warning("%s: no comment explains %s", path.relative_to(CONF.parent), dotted)
        yield Value(dotted, default, meaning or "the class that is built" if key == "_target_" else meaning)


def _table(values: list[Value], prefix: str = "") -> str:
    rows = [
        f"| `{prefix}{value.key}` | `{value.default}` | {_cell(value.meaning)} |" for value in values if value.default
    ]
    return "\n".join(["| Key | Default | Meaning |", "| --- | --- | --- |", *rows]) if rows else ""


def _cell(text: str) -> str:
    return _linked(text).replace("|", "\\|").replace("<", "&lt;")


def _sentence(text: str) -> str:
    return _linked(text[:1].upper() + text[1:].rstrip(" ;.") + ".") if text else ""


def _linked(text: str) -> str:
    """The text with each mention of another page made a link, so that a broken one stops the build."""
    return re.sub(r"docs/([\w/-]+\.md)", r"[\1](../\1)", text)
