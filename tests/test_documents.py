"""Messages, comments and the README point to documents that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A path such as docs/how-to/predict.md, not the docs/ of an address.
MENTION = re.compile(r"(?<![\w./])docs/[\w./-]+\.\w+")
FOLDERS = ("spleen", "hydra_plugins", "conf", "experiments", "benchmarks", "tests", "docs")
READABLE = {".py", ".yaml", ".md", ".ipynb"}


def mentions() -> list[tuple[str, str]]:
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "mkdocs.yml"]
    files += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in READABLE]
    return [
        (str(path.relative_to(ROOT)), mention)
        for path in files
        if path != Path(__file__)
        for mention in MENTION.findall(path.read_text(encoding="utf-8"))
    ]


def test_a_document_that_is_mentioned_exists() -> None:
    # Commands and configuration are generated when the site is built.
    generated = {"docs/reference/commands.md", "docs/reference/configuration.md"}
    found = mentions()
    assert len(found) > 20
    assert [(file, path) for file, path in found if path not in generated and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("text", ["see docs/data.md.", "(docs/how-to/predict.md)", "[a](docs/images/overlay.png)"])
def test_a_mention_is_found(text: str) -> None:
    assert len(MENTION.findall(text)) == 1


def test_the_docs_of_an_address_are_no_mention() -> None:
    assert MENTION.findall("https://hydra.cc/docs/1.3/grammar.html") == []


def test_notebooks_hold_no_outputs() -> None:
    notebooks = list((ROOT / "docs").rglob("*.ipynb"))
    assert notebooks
    assert [path.name for path in notebooks if re.search(r'"output_type"', path.read_text(encoding="utf-8"))] == []
