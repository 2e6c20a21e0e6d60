"""The layout described in CONTRIBUTING.md: every room has a docstring, few modules and its own test folder."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "spleen"
ROOMS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
MAX_MODULES = 14


def test_the_package_root_contains_only_the_allowed_modules() -> None:
    assert sorted(path.name for path in PACKAGE.glob("*.py")) == ["__init__.py", "__main__.py", "errors.py", "types.py"]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(PACKAGE)))
def test_each_room_has_a_docstring_only_init_and_few_modules(room: Path) -> None:
    (docstring,) = ast.parse((room / "__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(docstring.value, ast.Constant)
    modules = [path for path in room.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MAX_MODULES


def test_every_test_folder_is_named_after_a_room() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders <= rooms
