"""`dynpin pin FILE…`: the pins of certificates, keys and CSRs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail, reason_of
from dynpin.cli.options import JsonOption
from dynpin.cli.printing import print_json, say
from dynpin.errors import UnpinnableKey
from dynpin.pins import Pin

__all__ = ["pin"]


def pin(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="PEM or DER: a certificate or chain, a public or private key, a CSR."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Print the pin of each FILE: the base64 SHA-256 of its SubjectPublicKeyInfo, as browsers and curl write it.

    If a file contains several things, its first certificate counts. Exit code 2 if a file cannot be pinned; without
    --json the pins of the others are still printed.

    Example: dynpin pin tls/fullchain.pem backup.pub.pem
    """
    pins: list[dict[str, str]] = []
    refused: list[str] = []
    for file in files:
        try:
            pins.append({"file": str(file), "pin": str(Pin.from_file(file))})
        except UnpinnableKey as error:
            refused.append(str(error))
        except OSError as error:
            refused.append(reason_of(error, file))
    if not as_json:
        for entry in pins:
            say(entry["pin"] if len(files) == 1 else f"{entry['pin']}  {entry['file']}")
    if refused:
        fail("\n        ".join(refused))
    if as_json:
        print_json(pins)
