"""The distribution: each file once, and an installation that works where only it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

import dynpin
from tests.environments import made_once

ROOT = Path(__file__).parents[2]
NAME = f"dynpin-{dynpin.__version__}"
# The two links, and the folders at the top that they stand for.
LINKS = {"dynpin/middleware": "middleware", "dynpin/clientstore": "clientstore"}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """The stdout of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} failed in {cwd}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make_environment(folder: Path, *requirements: str | Path) -> None:
    """A new environment that holds `requirements` and what they need, and not even pip."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--quiet", "--python", python, "install", *requirements, cwd=folder)


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="module")
def once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Makes a folder of this name once, for all processes that run tests."""
    return lambda name, make: made_once(request, tmp_path_factory, name, make)


@pytest.fixture(scope="module")
def checkout(once: MakeOnce) -> Path:
    """What a clone holds, so that no build leaves anything in this one. What others make meanwhile is no part of it."""
    return once("checkout", lambda folder: copy_checkout(folder / "dynpin")) / "dynpin"


def copy_checkout(folder: Path) -> None:
    skipped = shutil.ignore_patterns("__pycache__", "_build", "faults", "node_modules", "*.egg-info")
    folder.mkdir()
    for name in ("dynpin", "middleware", "clientstore", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)


@pytest.fixture(scope="module")
def sources(checkout: Path) -> set[str]:
    """Every file of the package as it is to be installed."""
    wanted: set[str] = set()
    for package in (checkout / "dynpin", *(checkout / folder for folder in LINKS.values())):
        prefix = next((link for link, folder in LINKS.items() if folder == package.name), "dynpin")
        wanted |= {f"{prefix}/{file.relative_to(package)}" for file in package.rglob("*") if file.is_file()}
    assert {"dynpin/pins.py", "dynpin/clientstore/store/pinstore.py"} <= wanted
    return wanted


@pytest.fixture(scope="module")
def sdist(checkout: Path, once: MakeOnce) -> Path:
    command = (sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir")
    return once("sdist", lambda folder: run(*command, folder, cwd=checkout)) / f"{NAME}.tar.gz"


@pytest.fixture(scope="module")
def wheel(sdist: Path, once: MakeOnce) -> Path:
    """The wheel that is built from the sdist, as a package index's users would build it."""

    def build(folder: Path) -> None:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "..", cwd=folder / NAME)

    return once("wheel", build) / f"{NAME}-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(wheel: Path, once: MakeOnce) -> Path:
    return once("installed", lambda folder: make_environment(folder, wheel)) / "bin" / "python"


@pytest.fixture(scope="module")
def editable(checkout: Path, sdist: Path, once: MakeOnce) -> Path:
    # Behind the sdist: the two are built in the same folder.
    assert sdist.exists()
    made = once("editable", lambda folder: make_environment(folder, "--no-deps", "--editable", checkout))
    return made / "bin" / "python"


def names_in(distribution: Path) -> list[str]:
    """The files of an sdist or a wheel, each as often as it stands there, below the top folder of an sdist."""
    if distribution.suffix == ".whl":
        with zipfile.ZipFile(distribution) as archive:
            return [name for name in archive.namelist() if not name.endswith("/")]
    with tarfile.open(distribution) as archive:
        assert not [member.name for member in archive if member.issym() or member.islnk()]
        return ["/".join(PurePosixPath(member.name).parts[1:]) for member in archive if member.isfile()]


@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_each_file_stands_exactly_once(kind: str, sources: set[str], request: pytest.FixtureRequest) -> None:
    names = names_in(request.getfixturevalue(kind))
    assert not {name: count for name, count in Counter(names).items() if count > 1}
    assert {name for name in names if name.startswith("dynpin/")} == sources
    assert not [name for name in names if name.split("/")[0] in {*LINKS.values(), "tests", "docs"}]


def test_the_distributions_carry_type_marker_licence_and_changelog(sdist: Path, wheel: Path) -> None:
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "dynpin/py.typed"} <= set(names_in(sdist))
    assert {"dynpin/py.typed", f"{NAME}.dist-info/licenses/LICENSE"} <= set(names_in(wheel))


def test_the_installed_command_tells_its_version(installed: Path, tmp_path: Path) -> None:
    assert run(installed.with_name("dynpin"), "--version", cwd=tmp_path).strip() == f"dynpin {dynpin.__version__}"


# What the base installation has for the command and the store, and what only an extra brings.
COMMAND = ("typer", "rich", "click")
OTHERS = ("httpx", "httpx2", "requests", "urllib3", "aiohttp", "starlette", "flask", "werkzeug", "uvicorn", "trustme")


@pytest.mark.parametrize("module", ["dynpin", "dynpin.middleware", "dynpin.clientstore"])
@pytest.mark.parametrize("environment", ["installed", "development"])
def test_importing_the_library_imports_no_command_and_no_framework(
    module: str, environment: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # Where they are installed as well, an import guarded by "except ImportError" would show.
    python = request.getfixturevalue("installed") if environment == "installed" else sys.executable
    loaded = run(python, "-c", f"import sys, {module}; print(*sys.modules)", cwd=tmp_path).split()
    assert module in loaded
    assert not {name.split(".")[0] for name in loaded} & {*COMMAND, *OTHERS}


@pytest.mark.parametrize("module", ["dynpin.middleware", "dynpin.clientstore"])
def test_an_editable_installation_follows_the_links(
    module: str, checkout: Path, editable: Path, tmp_path: Path
) -> None:
    # What dynpin needs comes from this environment, which holds a dynpin too: behind the one under test.
    code = f"import sys; sys.path.append(sys.argv[1]); import {module} as module; print(module.__file__)"
    linked = Path(run(editable, "-c", code, sysconfig.get_path("purelib"), cwd=tmp_path).strip())
    assert linked == checkout / module.replace(".", "/") / "__init__.py"
    assert linked.resolve() == checkout.resolve() / LINKS[module.replace(".", "/")] / "__init__.py"


def test_the_links_are_links_in_this_checkout() -> None:
    assert {link: (ROOT / link).readlink().as_posix() for link in LINKS} == {
        link: f"../{folder}" for link, folder in LINKS.items()
    }


def test_what_is_built_twice_is_the_same(sdist: Path, wheel: Path, checkout: Path, tmp_path: Path) -> None:
    """A later build of the commit on another machine has the same bytes as the release."""
    again = tmp_path / "elsewhere"
    shutil.copytree(checkout, again, symlinks=True)
    for file in again.rglob("*.py"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", cwd=again)
    for first in (sdist, wheel):
        assert (tmp_path / "dist" / first.name).read_bytes() == first.read_bytes(), first.name


def test_the_metadata_is_complete(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    assert run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, cwd=tmp_path).count("PASSED") == 2


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed: apt-get install make")
@pytest.mark.parametrize("target", ["lab", "test", "dev"])
def test_make_installs_nothing_into_the_environment_of_another_folder(
    target: str, checkout: Path, editable: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    (environment / "stamps").mkdir(parents=True)
    (environment / "stamps" / "venv").touch()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (environment / name).symlink_to(editable.parents[1] / name)
    # What would install only says that it was called.
    command = (
        "make",
        "-f",
        ROOT / "Makefile",
        f"{environment}/stamps/{target}",
        f"VENV={environment}",
        "PIP=@echo pip",
    )

    def make(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "pyproject.toml").touch()
    refused = make(elsewhere)
    assert refused.returncode == 2
    assert f"{environment} runs the dynpin of {checkout.resolve()}: nothing was installed." in refused.stderr
    assert "pip install" not in refused.stdout
    made = make(checkout)
    assert made.returncode == 0, made.stderr
    assert "pip install --editable" in made.stdout
