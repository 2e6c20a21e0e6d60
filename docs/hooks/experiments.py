"""MkDocs hook: the README of each study in experiments/ as a page, with its study.yaml beside it."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FOLDER = "explanation/experiments"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, with their links turned to where things lie in the site."""
    for readme in sorted(EXPERIMENTS.glob("*/README.md")):
        name = readme.parent.name
        text = readme.read_text().replace("](study.yaml)", f"]({name}.yaml)")
        text = re.sub(r"\]\(\.\./(\w+)/README\.md", r"](\1.md", text)
        text = text.replace("](../../docs/", "](../../")  # the page lies as deep below docs/
        files.append(File.generated(config, f"{FOLDER}/{name}.md", content=text))
        study = (readme.parent / "study.yaml").read_text()
        files.append(File.generated(config, f"{FOLDER}/{name}.yaml", content=study))
    return files
