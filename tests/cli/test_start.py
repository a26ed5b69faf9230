"""What is imported when the command starts, and what its table of commands says before anything is imported."""

from __future__ import annotations

import json
import re

import pytest
import trustme
from typer.testing import CliRunner

from dynpin import __version__
from dynpin.cli.app import COMMANDS, app, command

from .processes import dynpin, python

# What takes long to import, and what the tables of commands can be told without.
HEAVY = {
    "cryptography",
    "dynpin.clientstore",
    "dynpin.deploy",
    "dynpin.lab",
    "dynpin.middleware",
    "httpx",
    "jinja2",
    "requests",
    "sqlite3",
    "uvicorn",
}
IMPORTED = """
import json
from dynpin.cli import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def imported_by(*arguments: str, **environment: str) -> tuple[str, set[str]]:
    """What the command prints, and the modules that are imported at its end."""
    done = python(IMPORTED, *arguments, **environment)
    assert done.returncode == 0
    return done.stdout.decode(), set(json.loads(done.stderr.splitlines()[-1]))


def of(packages: set[str], modules: set[str]) -> set[str]:
    """Those modules that belong to one of the packages."""
    return {name for name in modules if any(f"{name}.".startswith(f"{package}.") for package in packages)}


def commands_of(module: str) -> set[str]:
    return {f"dynpin.cli.{name}" for name in COMMANDS} - {module}


def test_the_version_needs_no_library() -> None:
    said, modules = imported_by("--version")
    assert said == f"dynpin {__version__}\n"
    assert not of(HEAVY | {"typer", "rich", "click", "ssl"}, modules)


@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_help_imports_no_command(asked: str) -> None:
    said, modules = imported_by(asked)
    assert "For study" in said
    assert not of(HEAVY | commands_of(""), modules)


@pytest.mark.parametrize(
    ("arguments", "module", "needed"),
    [
        (("hosts", "list"), "hosts", {"dynpin.clientstore", "sqlite3"}),
        (("pin", "site.pem"), "pin", set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_imports_its_own(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    module: str,
    needed: set[str],
) -> None:
    folder = tmp_path_factory.mktemp("start")
    (folder / "site.pem").write_bytes(trustme.CA().cert_pem.bytes())
    monkeypatch.chdir(folder)
    _, modules = imported_by(*arguments)
    assert of(commands_of(""), modules) <= {f"dynpin.cli.{module}"}
    assert not of(HEAVY - needed, modules)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_docstring_says(name: str) -> None:
    told = command(name)
    assert told.name == name
    assert told.help is not None
    assert " ".join(told.help.split("\n\n")[0].split()) == COMMANDS[name].help


def test_help_lists_every_command_in_its_panel() -> None:
    lines = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout.splitlines()
    panel, listed = "", dict[str, tuple[str, str]]()
    for line in lines:
        if "─ For " in line:
            panel = line.strip("╭╮─ ")
        elif panel and "│" in line:
            name, _, words = line.strip("│ ").partition(" ")
            listed[name] = (panel, words.strip())
    assert listed == {name: (row.panel, row.help) for name, row in COMMANDS.items()}
    assert list(listed) == list(COMMANDS)


@pytest.mark.parametrize("asked", ["", "hosts", "hosts forget", "collect tokens add"])
def test_a_person_who_asks_for_help_reads_no_type_of_python(asked: str) -> None:
    shown = CliRunner().invoke(app, [*asked.split(), "--help"])
    assert shown.exit_code == 0
    assert "--help" in shown.stdout
    assert not re.search(r"<\w+|BOOLEAN|{\w", shown.stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hots"], ["No such command 'hots'", "Did you mean 'hosts'?"]),
        (["nonsense"], ["No such command 'nonsense'", "Usage: "]),
        (["hosts", "lst"], ["No such command 'lst'", "Did you mean 'list'?"]),
        (["--verson"], ["No such option: --verson"]),
        (["pin"], ["Missing argument"]),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_as_ever(arguments: list[str], words: list[str]) -> None:
    done = dynpin(*arguments)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b"")
    assert not [word for word in words if word not in said], said


@pytest.mark.parametrize(
    ("typed", "offered", "modules"),
    [
        ("dynpin ho", {"hosts"}, set()),
        ("dynpin ", set(COMMANDS), set()),
        ("dynpin hosts im", {"import"}, {"dynpin.cli.hosts"}),
        ("dynpin rotate status --his", {"--history"}, {"dynpin.cli.rotate"}),
    ],
)
def test_shells_complete_commands_verbs_and_options(typed: str, offered: set[str], modules: set[str]) -> None:
    words = typed.split(" ")
    said, found = imported_by(_DYNPIN_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(words) - 1))
    assert set(said.split()) == offered
    assert of(commands_of(""), found) <= modules
