"""The rules of the house: who may import whom. The protocol is sans-I/O, and the two halves do not know each other."""

from __future__ import annotations

import ast
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# `python -m dynpin` is the command, which stands on top.
PROTOCOL = sorted(
    path for rooms in (".", "report") for path in (ROOT / "dynpin" / rooms).glob("*.py") if path.name != "__main__.py"
)
# What would open a socket, a file or a database, or tell the time. dynpin/files.py opens files with os.
INPUT_AND_OUTPUT = {
    "asyncio",
    "http",
    "io",
    "pathlib",
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
# What a program imports besides the room's own names: one file for each library, and the pins' files of other programs.
# Each has an extra of its name, except those for the standard library, and niquests, which replaces urllib3.
ADAPTERS = {"http_client", "niquests"} | {
    extra
    for extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    if (ROOT / "clientstore" / f"{extra}.py").exists()
}


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


def _name(path: Path) -> str:
    """The module of a file; of an `__init__` that of its room."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "dynpin" else ("dynpin", *parts)).removesuffix(".__init__")


@pytest.mark.parametrize("path", PROTOCOL, ids=_name)
def test_the_protocol_is_sans_io(path: Path) -> None:
    found = imported(path)
    tops = {name.partition(".")[0] for name in found}
    assert tops <= sys.stdlib_module_names | {"cryptography", "idna", "dynpin"}
    assert not tops & INPUT_AND_OUTPUT
    assert {name for name in found if name.startswith("dynpin.")} <= {_name(other) for other in PROTOCOL}


@pytest.mark.parametrize("half", list(HALVES))
def test_the_halves_import_the_protocol_and_never_each_other(half: str) -> None:
    files = sorted((ROOT / half).rglob("*.py"))
    assert files
    for path in files:
        rooms = {".".join(name.split(".")[:2]) for name in imported(path)}
        assert rooms.isdisjoint({HALVES[half], *TOOLS}), path


# -- rooms ------------------------------------------------------------------------------------------------------------

# What is imported by the one command that needs it: the rooms themselves hand out nothing that takes long to import.
LAZY = {
    *("dynpin.deploy.lint.holdings", "dynpin.deploy.lint.sarif"),
    *("dynpin.deploy.rotation.file", "dynpin.deploy.rotation.gantt"),
    *("dynpin.deploy.rotation.repair", "dynpin.deploy.rotation.shared", "dynpin.deploy.rotation.sights"),
}
# What has rooms of its own, and what a program imports of it besides their names: one file for each library; of the
# operator's side, one for each task.
HOUSES = {
    "dynpin.clientstore": {f"dynpin.clientstore.{adapter}" for adapter in ADAPTERS},
    "dynpin.middleware.policy": set[str](),
    "dynpin.deploy": LAZY | {f"dynpin.deploy.{path.stem}" for path in (ROOT / "dynpin" / "deploy").glob("*.py")},
}


def _folder(module: str) -> Path:
    """The folder of a room. The two halves stand beside the package, which has links to them."""
    parts = module.split(".")
    return ROOT.joinpath(*parts[1:] if parts[1] in HALVES else parts)


def _files(house: str) -> dict[str, Path]:
    return {_name(path): path for path in sorted(_folder(house).rglob("*.py"))}


FILES = {module: path for house in HOUSES for module, path in _files(house).items()}
ROOMS = {name for name, path in FILES.items() if path.name == "__init__.py"}


def _house(module: str) -> str:
    return next(house for house in HOUSES if f"{module}.".startswith(f"{house}."))


def _room(module: str) -> str:
    return module if module in ROOMS else module.rpartition(".")[0]


def _handed_out(module: str) -> list[str]:
    """The names in `__all__` of a room: one may be that of the file that it comes from."""
    names: list[str] = []
    if module in ROOMS:
        for node in ast.parse(FILES[module].read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names = ast.literal_eval(node.value)
    return names


def of_the_house(house: str, path: Path) -> set[str]:
    """The modules of a house that a file imports, wherever in it, for its types too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            stem = _absolute(path, node.level) if node.level else ""
            module = f"{stem}{node.module or ''}".removesuffix(".")
            files = {f"{module}.{alias.name}" for alias in node.names if alias.name not in _handed_out(module)}
            found |= files & FILES.keys() or {module}
    return {name for name in found if f"{name}.".startswith(f"{house}.")}


@pytest.mark.parametrize("house", HOUSES)
def test_what_stands_outside_takes_what_its_rooms_hand_out(house: str) -> None:
    folders = [_folder(part) for part in (*TOOLS, ".".join(house.split(".")[:2]))]
    outside = [
        path for folder in folders for path in folder.rglob("*.py") if not f"{_name(path)}.".startswith(f"{house}.")
    ]
    assert outside
    reached = {str(path.relative_to(ROOT)): of_the_house(house, path) - ROOMS - HOUSES[house] for path in outside}
    assert {path: modules for path, modules in reached.items() if modules} == {}


@pytest.mark.parametrize("module", FILES)
def test_a_file_takes_what_other_rooms_hand_out(module: str) -> None:
    path, house = FILES[module], _house(module)
    assert not {name for name in absolute_imports(path) if f"{name}.".startswith(f"{house}.")}
    # Its own room, and those that this one is a part of, are open to it.
    open_to_it = {other for other in FILES if f"{module}.".startswith(f"{_room(other)}.")}
    assert of_the_house(house, path) <= ROOMS | open_to_it | LAZY


def absolute_imports(path: Path) -> set[str]:
    """What a file imports by its whole name."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}


@pytest.mark.parametrize("house", [*HOUSES, "dynpin.cli"])
def test_there_is_no_circle(house: str) -> None:
    graph = {module: of_the_house(house, path) - {module} for module, path in _files(house).items()}
    # The names of the house as a whole are looked up when somebody asks for them.
    del graph[house]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("house", ["dynpin", "dynpin.clientstore"])
def test_a_public_name_is_imported_at_its_first_use(house: str, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = import_module(house)
    for name in _handed_out(house):
        made = getattr(imported, name)
        if not name.startswith("__"):
            monkeypatch.delitem(vars(imported), name)
        assert name in dir(imported)
        assert getattr(imported, name) is made
    with pytest.raises(AttributeError, match=f"module '{house}' has no attribute 'other'"):
        _ = imported.other


# -- modules ----------------------------------------------------------------------------------------------------------

# The collector's modules are named again together with its rooms, and are no part of this yet.
MODULES = [
    path
    for part in ("clientstore", "middleware", "dynpin/cli", "dynpin/deploy")
    for path in sorted((ROOT / part).rglob("*.py"))
    if "collector" not in path.parts
]
# Names that say nothing, and names that each stand for one thing (docs/explanation/design.md).
EMPTY_NAMES = {"adding", "desk", "given", "keeping", "rounds", "whole", "words"}
NAMES_OF_ONE_THING = ("guard", "picture", "policy", "reading")


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [path for path in MODULES if path.stem in EMPTY_NAMES] == []


def test_a_module_can_be_read_in_ten_minutes() -> None:
    paths = [
        path
        for part in ("clientstore", "middleware", "dynpin", "tests", "docs", "examples")
        for path in (ROOT / part).rglob("*.py")
        if "node_modules" not in path.parts
    ]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


@pytest.mark.parametrize("name", NAMES_OF_ONE_THING)
def test_one_name_stands_for_one_thing(name: str) -> None:
    # A command has the name of what it is about: dynpin/cli/guard.py prints what dynpin/deploy/guard.py finds.
    found = [path for path in MODULES if path.stem == name and path.parent.name != "cli"]
    assert len(found) <= 1, found


# -- the command line -------------------------------------------------------------------------------------------------

# What several commands have is spelt, typed and explained one way.
SHARED_OPTIONS = {"--ca", "--client-cap", "--history", "--inventory", "--json", "--now", "--sarif"}
# The collector takes an inventory for each of its sites.
SEVERAL = {"collect_settings.py": {"--inventory"}}
COMMAND_FILES = sorted((ROOT / "dynpin" / "cli").glob("*.py"))


@pytest.mark.parametrize("path", COMMAND_FILES, ids=lambda path: path.name)
def test_a_shared_option_is_declared_in_one_place(path: Path) -> None:
    texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert (
        texts >= SHARED_OPTIONS
        if path.name == "options.py"
        else not (SHARED_OPTIONS - SEVERAL.get(path.name, set())) & texts
    )


@pytest.mark.parametrize("path", COMMAND_FILES, ids=lambda path: path.name)
def test_one_place_makes_consoles(path: Path) -> None:
    """Rich's own takes brackets in the name of a file for markup, and sends escapes on."""
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    assert "Console" not in calls


@pytest.mark.parametrize("path", COMMAND_FILES, ids=lambda path: path.name)
def test_one_place_makes_json(path: Path) -> None:
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not {"json.dump", "json.dumps"} & set(calls) or path.name == "printing.py"
