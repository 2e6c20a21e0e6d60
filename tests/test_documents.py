"""Every document mentioned in messages, comments and the README exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A path such as docs/how-to/predict.md, not the docs/ in a URL.
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


def test_every_mentioned_document_exists() -> None:
    # These two pages are generated when the site is built.
    generated = {"docs/reference/commands.md", "docs/reference/configuration.md"}
    found = mentions()
    assert len(found) > 20
    assert [(file, path) for file, path in found if path not in generated and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("text", ["see docs/data.md.", "(docs/how-to/predict.md)", "[a](docs/images/overlay.png)"])
def test_a_mention_is_recognised(text: str) -> None:
    assert len(MENTION.findall(text)) == 1


def test_docs_in_a_url_is_not_a_mention() -> None:
    assert MENTION.findall("https://hydra.cc/docs/1.3/grammar.html") == []


def test_notebooks_contain_no_outputs() -> None:
    notebooks = list((ROOT / "docs").rglob("*.ipynb"))
    assert notebooks
    assert [path.name for path in notebooks if re.search(r'"output_type"', path.read_text(encoding="utf-8"))] == []
