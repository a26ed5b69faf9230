"""The rules of the house: who may import whom. The protocol is sans-I/O, and the two halves do not know each other."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# `python -m dynpin` is the command, which stands on top.
PROTOCOL = sorted(path for path in (ROOT / "dynpin").glob("*.py") if path.name != "__main__.py")
# What would open a socket, a file or a database, or tell the time. pathlib stands for Pin.from_file alone.
INPUT_AND_OUTPUT = {
    "asyncio",
    "http",
    "io",
    "select",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "threading",
    "time",
}
HALVES = {"middleware": "dynpin.clientstore", "clientstore": "dynpin.middleware"}
TOOLS = ("dynpin.deploy", "dynpin.lab", "dynpin.cli")


def _absolute(path: Path, level: int) -> str:
    """What stands for the dots of a relative import, dot included."""
    rooms = path.relative_to(ROOT).parts[:-1]
    within = rooms[: len(rooms) - level + 1]
    return ".".join(within if within[0] == "dynpin" else ("dynpin", *within)) + "."


def imported(path: Path) -> set[str]:
    """The names of all modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(_absolute(path, node.level) + (node.module or "") if node.level else node.module or "")
    return names


@pytest.mark.parametrize("path", PROTOCOL, ids=lambda path: path.name)
def test_the_protocol_is_sans_io(path: Path) -> None:
    found = imported(path)
    tops = {name.partition(".")[0] for name in found}
    assert tops <= sys.stdlib_module_names | {"cryptography", "idna", "dynpin"}
    assert not tops & INPUT_AND_OUTPUT
    assert {name for name in found if name.startswith("dynpin.")} <= {f"dynpin.{other.stem}" for other in PROTOCOL}
    assert "pathlib" not in found or path.name == "pins.py"


@pytest.mark.parametrize("half", list(HALVES))
def test_the_halves_import_the_protocol_and_never_each_other(half: str) -> None:
    files = sorted((ROOT / half).rglob("*.py"))
    assert files
    for path in files:
        rooms = {".".join(name.split(".")[:2]) for name in imported(path)}
        assert rooms.isdisjoint({HALVES[half], *TOOLS}), path
