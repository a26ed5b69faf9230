"""What the verbs of `dynpin recovery` share: options, keys, the clock, and how they end."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.errors import fail, finding, lacking, reason_of
from dynpin.cli.options import moment
from dynpin.cli.passphrase import passphrase_of_keys
from dynpin.cli.printing import say
from dynpin.errors import DynpinError

try:
    from dynpin.deploy.recovery import Refused, Repository, clock_fault, open_to_others, read_signers
except ModuleNotFoundError as error:
    lacking("dynpin recovery", error.name, "recovery")

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner  # pyright: ignore[reportPrivateImportUsage]

__all__ = [
    "DEFAULT_FOLDER",
    "ClockOption",
    "FolderOption",
    "KeysOption",
    "PublishedOption",
    "inside",
    "refuse_clock",
    "signers_of",
    "told",
]

FolderOption = Annotated[Path, typer.Option("--in", help="The folder of keys and signed files.")]
KeysOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--key", help="A private half. May be repeated. Without it, those in the folder keys.", show_default=False
    ),
]
ClockOption = Annotated[
    bool, typer.Option("--clock-is-right", help="Sign, though the last signature is of another time than the clock's.")
]
PublishedOption = Annotated[
    Path | None,
    typer.Option(
        "--published",
        help="The folder that is served: nothing is signed that contradicts it. Without it, the one that was published "
        "last, where this machine has it.",
        show_default=False,
    ),
]
DEFAULT_FOLDER = Path("recovery")


def inside(folder: Path) -> str:
    """What a command needs to find the folder again."""
    return "" if folder == DEFAULT_FOLDER else f" --in {folder}"


@contextmanager
def told() -> Generator[None]:
    """End the command where the block fails: 1 for what would harm clients and was not done, 2 for anything else."""
    try:
        yield
    except Refused as error:
        finding(str(error))
    except (DynpinError, OSError, ValueError) as error:
        fail(reason_of(error))


def signers_of(
    repository: Repository, keys: list[Path] | None, passphrase_file: Path | None, *, of: tuple[str, ...]
) -> list[CryptoSigner]:
    """The keys that are named, or those of these roles in the folder of keys."""
    files = keys or sorted(file for role in of for file in repository.keys.glob(f"{role}-*.key.pem"))
    for problem in open_to_others(repository.keys, files):
        say(f"dynpin: {problem}", err=True)
    return read_signers(files, lambda: passphrase_of_keys(passphrase_file))


def refuse_clock(repository: Repository, now: str | None, *, is_right: bool) -> float:
    """The time to sign with, or the end of the command where the clock cannot be right."""
    at = moment(now)
    fault = None if is_right else clock_fault(repository.signed(), at)
    if fault is not None:
        finding(f"nothing is signed: {fault}")
    return at
