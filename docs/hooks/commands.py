"""MkDocs hook: docs/reference/commands.md from the `spleen` command itself."""

import re
from collections.abc import Iterator
from html import escape
from inspect import cleandoc
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from spleen.cli.main import app

PAGE = "reference/commands.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page."""
    files.append(File.generated(config, PAGE, content=commands_page()))
    return files


def commands_page() -> str:
    """A section for each command: usage, description, arguments and options."""
    sections = [_section(title, command) for title, command in _commands("spleen", typer.main.get_command(app))]
    return "\n\n".join(["# Commands", "Each of these is also printed by `spleen COMMAND --help`.", *sections])


def _commands(title: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command, or those of a group of commands."""
    if command.hidden:
        return
    if not hasattr(command, "commands"):
        yield title, command
        return
    for name, each in command.commands.items():
        yield from _commands(f"{title} {name}", each)


def _section(title: str, command: Any) -> str:
    context = command.context_class(command, info_name=title)
    usage = " ".join([title, *command.collect_usage_pieces(context)])
    shown = [parameter for parameter in command.params if not parameter.hidden]
    tables = [
        _table(
            heading, [parameter.get_help_record(context) for parameter in shown if parameter.param_type_name == kind]
        )
        for heading, kind in (("Argument", "argument"), ("Option", "option"))
    ]
    text = _with_code(cleandoc(command.help or ""))
    return "\n\n".join(part for part in (f"## {title}", f"```text\n{usage}\n```", text, *tables) if part)


def _table(heading: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = [f"| <code>{_cell(escape(name))}</code> | {_with_code(_cell(meaning))} |" for name, meaning in rows]
    return "\n".join([f"| {heading} | Meaning |", "| --- | --- |", *lines])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "&#124;").split())


def _with_code(text: str) -> str:
    """The text with options and defaults set as code, and each mention of another page made a link."""
    text = re.sub(r"\[default: (.*)\]$", lambda match: f"*Default:* `{match[1].strip('()')}`.", text)
    text = text.replace("[required]", "*Required.*")
    text = re.sub(r"docs/([\w/-]+\.md)", r"[\1](../\1)", text)
    return re.sub(r"(?<![\w`-])(--[a-z][a-z0-9-]*)", r"`\1`", text)
