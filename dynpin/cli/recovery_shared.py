"""The common part of the verbs of `dynpin recovery`: options, keys, the clock, and exit codes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.errors import finding, lacking
from dynpin.cli.options import moment
from dynpin.cli.passphrase import passphrase_of_keys
from dynpin.cli.printing import say

try:
    from dynpin.deploy.recovery import Refused, Repository, clock_fault, open_to_others, read_signers
except ModuleNotFoundError as error:
    lacking("dynpin recovery", error.name, "recovery")

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner  # pyright: ignore[reportPrivateImportUsage]

__all__ = [
    "DEFAULT_FOLDER",
    "FolderOption",
    "KeysOption",
    "PublishedOption",
    "inside",
    "refusal_ends",
    "refuse_clock",
    "signers_of",
]

FolderOption = Annotated[Path, typer.Option("--in", metavar="FOLDER", help="The folder of keys and signed files.")]
KeysOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--key", help="A private half. Repeatable. The default is those in the folder keys.", show_default=False
    ),
]
PublishedOption = Annotated[
    Path | None,
    typer.Option(
        "--published",
        metavar="FOLDER",
        help="The folder that is served: nothing is signed that contradicts it. The default is the one that was "
        "published to last, if this machine has it.",
        show_default=False,
    ),
]
DEFAULT_FOLDER = Path("recovery")


def inside(folder: Path) -> str:
    """The option with which a command finds the folder again."""
    return "" if folder == DEFAULT_FOLDER else f" --in {folder}"


@contextmanager
def refusal_ends() -> Generator[None]:
    """End the command with a finding if the block refused to harm clients."""
    try:
        yield
    except Refused as error:
        finding(str(error))


def signers_of(
    repository: Repository, keys: list[Path] | None, passphrase_file: Path | None, *, of: tuple[str, ...]
) -> list[CryptoSigner]:
    """The given keys, or those of these roles in the folder of keys."""
    files = keys or sorted(file for role in of for file in repository.keys.glob(f"{role}-*.key.pem"))
    for problem in open_to_others(repository.keys, files):
        say(f"dynpin: {problem}", err=True)
    return read_signers(files, lambda: passphrase_of_keys(passphrase_file))


def refuse_clock(repository: Repository, now: str | None, *, is_right: bool) -> float:
    """The time to sign with; the command ends if the clock cannot be right."""
    at = moment(now)
    fault = None if is_right else clock_fault(repository.signed(), at)
    if fault is not None:
        finding(f"nothing is signed: {fault}")
    return at
