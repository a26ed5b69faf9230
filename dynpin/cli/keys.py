"""`dynpin keys`: make backup keys, and see whether there is one of each type."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail, finding, in_words
from dynpin.cli.printing import say
from dynpin.cli.site import DEFAULT_INVENTORY, InventoryOption, site_of
from dynpin.deploy.keys import KeyType, key_type, missing_backups, new_key, write_key
from dynpin.errors import DynpinError
from dynpin.middleware.policy import Inventory, path_of, read_inventory
from dynpin.pins import Pin

__all__ = ["app"]

app = typer.Typer(help="Make backup keys, and see whether there is one of each type.", no_args_is_help=True)

_WHERE = """\
Where to keep it
  {private} is the only file that is secret. Move it off this machine now: to two
  places that do not burn down together (an encrypted stick in a safe, a password manager's vault). Its passphrase
  belongs in neither of them. The server needs the public half or the CSR alone: name one of them as a backup.
  On the day it is needed: have {csr} signed, bring the private key back, deploy both."""


@app.command(name="new")
def new(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(
            help="The host names that the key is for; its CSR names them. Without any, those of the inventory.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[KeyType, typer.Option("--type", help="The type of the key.")] = "ec-p256",
    folder: Annotated[Path, typer.Option("--out", help="The folder to write to.")] = Path(),
    name: Annotated[
        str | None, typer.Option("--name", help="How the files begin; without it, backup-TYPE.", show_default=False)
    ] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file", help="Read the passphrase from its first line; - for stdin; else you are asked."
        ),
    ] = None,
    inventory: InventoryOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Make a backup key: its encrypted private half, its public half, a CSR, and its pin."""
    try:
        site = read_inventory(inventory or DEFAULT_INVENTORY) if inventory or DEFAULT_INVENTORY.is_file() else None
        hosts = hosts or (list(site.hosts) if site else None)
        if not hosts:
            fail("name the hosts that the key is for, or an --inventory that does")
        key = new_key(kind, hosts, _passphrase(passphrase_file))
        files = write_key(key, folder, name or f"backup-{kind}")
    except (DynpinError, OSError, ValueError) as error:
        fail(in_words(error))
    if as_json:
        typer.echo(
            json.dumps(
                {"type": kind, "pin": str(key.pin), "files": {form: str(path) for form, path in files.items()}},
                indent=2,
            )
        )
        return
    say(f"pin      {key.pin}")
    for form, path in files.items():
        say(f"{form:<9}{path}{'  (encrypted)' if form == 'private' else ''}")
    say(f"\n{_WHERE.format(**{form: str(path) for form, path in files.items()})}")
    if site is not None:
        say(f"\nIn {site.path.name}, so that it is pinned\n  {_backups_line(site, files['public'])}")
    if kind == "ed25519":
        say("  No public CA signs Ed25519 keys: this one is for a CA of your own.")


def _backups_line(site: Inventory, public: Path) -> str:
    """The line of the inventory that names a new backup key beside those that it has."""
    entries = [
        f'{{ pin = "{source!s}" }}' if path is None else json.dumps(os.path.relpath(path, site.path.parent))
        for source in site.terms.backups
        for path in [path_of(source)]
    ]
    return f"backups = [{', '.join([*entries, json.dumps(os.path.relpath(public, site.path.parent))])}]"


def _passphrase(file: Path | None) -> bytes:
    if file is None:
        try:
            asked: str = typer.prompt(
                "Passphrase of the private half", hide_input=True, confirmation_prompt=True, err=True
            )
        except typer.Abort as aborted:
            if isinstance(aborted.__context__, KeyboardInterrupt):  # Typer makes one of Ctrl-C and the end of input
                raise KeyboardInterrupt from None
            fail("no passphrase was given; --passphrase-file reads it from a file, or with - from stdin")
        return asked.encode()
    text = sys.stdin.buffer.readline() if str(file) == "-" else file.read_bytes().partition(b"\n")[0]
    return text.rstrip(b"\r\n")


@app.command(name="list")
def list_keys(
    deployed: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DEPLOYED]...",
            help="What is deployed: certificate chains or keys. Without any, the files that the inventory names.",
            show_default=False,
        ),
    ] = None,
    backups: Annotated[
        list[Path] | None, typer.Option("--backup", help="A backup: public key or CSR. May be repeated.")
    ] = None,
    inventory: InventoryOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the keys as JSON.")] = False,
) -> None:
    """List keys with type and pin, and say which type has no backup. Exit code 1 where one is missing."""
    if deployed and inventory is not None:
        fail("name what is deployed, or give --inventory, not both")
    site = site_of(inventory, is_named_otherwise=bool(deployed))
    if site is not None:
        deployed, backups = list(site.chain_files), [*site.backup_files, *(backups or [])]
    if not deployed:
        fail("name what is deployed: a certificate chain or a key, or an --inventory that names files")
    rows: list[dict[str, str]] = []
    for role, files in (("deployed", deployed), ("backup", backups or [])):
        for file in files:
            try:
                rows.append(
                    {
                        "role": role,
                        "type": key_type(file.read_bytes()),
                        "pin": str(Pin.from_file(file)),
                        "file": str(file),
                    }
                )
            except DynpinError as error:
                fail(f"{file}: {error}")
            except OSError as error:
                fail(f"{file}: {error.strerror or error}")
    used = {row["pin"] for row in rows if row["role"] == "deployed"}
    spare = [row["type"] for row in rows if row["role"] == "backup" and row["pin"] not in used]
    missing = missing_backups((row["type"] for row in rows if row["role"] == "deployed"), spare)
    if as_json:
        typer.echo(json.dumps({"keys": rows, "missing_backups": list(missing)}, indent=2))
    else:
        from rich.table import Table  # noqa: PLC0415 - beside what is shown

        from dynpin.cli.tables import table_console  # noqa: PLC0415

        table = Table("role", "type", "pin", "file", box=None, pad_edge=False)
        for row in rows:
            table.add_row(row["role"], row["type"], row["pin"], row["file"])
        table_console().print(table)
    if missing:
        told = " and ".join(missing)
        finding(None if as_json else f"no backup for {told} keys: dynpin keys new HOST --type … makes one")
