"""MkDocs hook: run each notebook under docs/ and make a page of it, outputs and pictures included.

Notebooks are kept without outputs. A cell that raises stops the build.
"""

import base64
import os
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
SECONDS_PER_CELL = 600

# The notebooks train tiny networks: more threads than one only wait for each other, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace NAME.ipynb by the page NAME.md and its pictures."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        notebook = nbformat.read(file.abs_src_path, as_version=4)
        if any(cell.cell_type == "code" and cell.outputs for cell in notebook.cells):
            raise ValueError(f"{file.src_uri} holds outputs; clear them before committing it")
        NotebookClient(notebook, timeout=SECONDS_PER_CELL, resources={"metadata": {"path": str(ROOT)}}).execute()
        page = file.src_uri.removesuffix(".ipynb")
        pictures: dict[str, bytes] = {}
        text = "\n\n".join(_cell(cell, page, pictures) for cell in notebook.cells if cell.source.strip())
        files.append(File.generated(config, f"{page}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, name, content=content))
    return files


def _cell(cell: Any, page: str, pictures: dict[str, bytes]) -> str:
    if cell.cell_type != "code":
        return str(cell.source)
    outputs = [_output(output, page, pictures) for output in cell.outputs]
    return "\n\n".join([f"```python\n{cell.source}\n```", *(output for output in outputs if output)])


def _output(output: Any, page: str, pictures: dict[str, bytes]) -> str:
    """The richest form of an output; `pictures` gets the content of a picture under its path in the site."""
    if output.output_type == "stream":
        return _block(output.text) if output.name == "stdout" else ""
    data = output.get("data", {})
    if "image/png" in data:
        name = f"{page}-{len(pictures) + 1}.png"
        pictures[name] = base64.b64decode(data["image/png"])
        return f"![{_alternative(data)}]({Path(name).name})"
    if "text/html" in data:
        return f'<div class="output" markdown="0">\n{data["text/html"]}\n</div>'
    return _block(data["text/plain"]) if "text/plain" in data else ""


def _alternative(data: Any) -> str:
    return "Picture that the cell above draws" if "Figure" in data.get("text/plain", "") else "Picture"


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"
