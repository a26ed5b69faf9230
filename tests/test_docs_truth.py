"""What the docs say about the code is so: files, settings, variables, exit codes, and where to install from."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from docs.generated import settings_page
from dynpin.cli import errors
from dynpin.cli.collect_settings import PREFIX, Settings, read_settings
from tests.test_docs import DOCUMENTS, ROOT
from tests.test_house import ADAPTERS

# A path of the repository, in code: its first folder is one of the house.
_PATH = re.compile(r"`((?:dynpin|middleware|clientstore|tests|docs)/[\w/.*-]*)`")
_VARIABLE = re.compile(r"\b(?:DYNPIN_[A-Z_]+|NIQUESTS_DNS_URL|[A-Z]+_CA_BUNDLE)\b")
# Also in text that a program prints: on the public index the name may be a stranger's.
_BARE_NAME = re.compile(r"""pip install (?:-\S+ )*["']?dynpin\b(?!/)""")


def _sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.md", "*.toml", "*.html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [ROOT / name for name in listed]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    if document.name == "CHANGELOG.md":
        return
    named = _PATH.findall(document.read_text())
    generated = ("docs/_build", "docs/reference/faults", "docs/reference/commands")
    missing = [name for name in named if not name.startswith(generated) and not [*ROOT.glob(name.rstrip("/"))]]
    assert missing == []


def test_nobody_is_told_to_install_a_bare_name() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in _sources()
        if path.exists() and path != Path(__file__)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if _BARE_NAME.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("text", ["pip install dynpin", "pip install 'dynpin[lab]'", 'pip install -U "dynpin"'])
def test_a_bare_name_is_found(text: str) -> None:
    assert _BARE_NAME.search(text)
    assert not _BARE_NAME.search('pip install "./dynpin[lab]"')


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_example_of_collector_toml_is_understood(name: str, tmp_path: Path) -> None:
    row = next(line for line in settings_page().splitlines() if line.startswith(f"| `{name}` |"))
    example = re.findall(r"`([^`]*)`", row)[-2]
    file = tmp_path / "collector.toml"
    file.write_text(f"{name} = {example}\n")
    read = read_settings({}, file, {})
    assert read.sources[name] == str(file)
    assert getattr(read.settings, name) != Settings.model_fields[name].default, "an example shows another value"
    assert tomllib.loads(file.read_text())


def test_every_variable_that_is_read_is_in_the_table() -> None:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text()
    folders = (ROOT / "clientstore", ROOT / "middleware", ROOT / "dynpin" / "cli", ROOT / "dynpin" / "deploy")
    code = "".join(file.read_text() for folder in folders for file in folder.rglob("*.py"))
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    read = set(_VARIABLE.findall(code)) - settings - {PREFIX}
    written = set(_VARIABLE.findall(page)) - {PREFIX}
    # `DYNPIN_COLLECTOR_CONFIG` is put together from its prefix.
    assert read | {f"{PREFIX}CONFIG"} == written


def test_the_exit_codes_are_those_of_the_command() -> None:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text()
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", page, flags=re.M)}
    assert codes == {errors.FINE, errors.FINDING, errors.USAGE, errors.STOPPED}


def _dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    return {re.split(r"[\[>=;]", each)[0] for each in wanted} - {"dynpin"}


def test_each_dependency_stands_in_the_table() -> None:
    page = (ROOT / "docs" / "reference" / "dependencies.md").read_text()
    cells = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    written = {name.strip() for cell in cells for name in cell.split(",")} - {"Package"}
    assert _dependencies() == written


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_each_client_library_stands_on_each_page(adapter: str) -> None:
    reference = ROOT / "docs" / "reference"
    for library in ("http.client", "urllib.request") if adapter == "http_client" else (adapter,):
        for name in ("clients.md", "errors.md"):  # in the first column of a table
            rows = [line.split("|")[1] for line in (reference / name).read_text().splitlines() if line.startswith("| ")]
            assert any(library in re.split(", ", row.strip()) for row in rows), name
        for name in ("client.md", "client-rules.md"):
            assert re.search(rf"(?<![\w.]){re.escape(library)}(?!\w)", (reference / name).read_text()), name
    # niquests is in no environment that builds the site.
    assert adapter == "niquests" or f"dynpin.clientstore.{adapter}." in (reference / "api" / "adapters.md").read_text()


def test_each_dependency_is_imported_by_the_package() -> None:
    modules = {"argon2-cffi": "argon2"}
    code = "".join(
        file.read_text() for room in ("dynpin", "clientstore", "middleware") for file in (ROOT / room).rglob("*.py")
    )
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", code, flags=re.M))
    assert {name for name in _dependencies() if modules.get(name, name) not in imported} == set()
