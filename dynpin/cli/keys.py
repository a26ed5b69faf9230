"""`dynpin keys`: make backup keys, and check that there is one of each type."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail, finding
from dynpin.cli.options import DEFAULT_INVENTORY, InventoryOption, JsonOption
from dynpin.cli.passphrase import PassphraseFileOption, passphrase
from dynpin.cli.printing import print_json, say
from dynpin.cli.site import inventory_of
from dynpin.deploy.inventory_text import backups_line
from dynpin.deploy.keys import KeyType, key_type, missing_backups, new_key, write_key
from dynpin.middleware.policy import (
    Chain,
    Key,
    in_chain,
    read_chain,
    read_inventory,
    read_key,
)

__all__ = ["app"]

app = typer.Typer(help="Make backup keys, and check that there is one of each type.", no_args_is_help=True)

_WHERE = """\
Where to keep it
  {private} is the only file that is secret. Move it off this machine now: to two
  places in different buildings (an encrypted stick in a safe, a password manager's vault). Keep its passphrase in a
  third place. The server needs only the public half or the CSR: name one of them as a backup.
  On the day when you need the key: let your CA sign {csr}, bring the private key back, and deploy both."""


@app.command(name="new")
def new(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="HOST",
            help="The host names for the key and its CSR. The default is those of the inventory.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[KeyType, typer.Option("--type", help="The type of the backup key.")] = "ec-p256",
    folder: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder to write to.")] = Path(),
    name: Annotated[
        str | None,
        typer.Option("--name", help="The start of the file names. The default is backup-TYPE.", show_default=False),
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a backup key: its encrypted private half, its public half, a CSR, and its pin.

    Example: dynpin keys new www.example.com --out offline
    """
    described = inventory or DEFAULT_INVENTORY
    site = read_inventory(described) if inventory or described.is_file() else None
    hosts = hosts or (list(site.hosts) if site else None)
    if not hosts:
        fail("name the hosts that the key is for, or an --inventory that does")
    key = new_key(kind, hosts, passphrase(passphrase_file))
    files = write_key(key, folder, name or f"backup-{kind}")
    if as_json:
        print_json({"type": kind, "pin": str(key.pin), "files": {form: str(path) for form, path in files.items()}})
        return
    say(f"pin      {key.pin}")
    for form, path in files.items():
        say(f"{form:<9}{path}{'  (encrypted)' if form == 'private' else ''}")
    say(f"\n{_WHERE.format(**{form: str(path) for form, path in files.items()})}")
    if site is not None:
        line = backups_line([*site.backups, files["public"]], described.parent)
        say(f"\nIn {described.name}, so that it is pinned\n  {line}")
    if kind == "ed25519":
        say("  No public CA signs Ed25519 keys: this one is for a CA of your own.")


@app.command(name="list")
def list_keys(
    deployed: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DEPLOYED",
            help="What is deployed: certificate chains or keys. The default is the files in the inventory.",
            show_default=False,
        ),
    ] = None,
    backups: Annotated[
        list[Path] | None, typer.Option("--backup", help="A backup: public key or CSR. Repeatable.")
    ] = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List keys with type and pin, and say which type has no backup. The exit code is 1 if one is missing.

    Example: dynpin keys list tls/fullchain.pem --backup offline/backup.pub.pem
    """
    if deployed and inventory is not None:
        fail("name what is deployed, or give --inventory, not both")
    site = inventory_of(inventory, is_named_otherwise=bool(deployed))
    chains = [read_chain(file, str(file)) for file in deployed or ()] if site is None else list(site.read_chains())
    reserve = [read_key(file, str(file)) for file in backups or ()]
    if site is not None:
        reserve = [*site.read_backups(), *reserve]
    reasons = [in_chain(key, chains, () if site is None else site.roots) for key in reserve]
    if not chains:
        fail("name what is deployed: a certificate chain or a key, or an --inventory that does")
    rows = [_row(_leaf(chain), "deployed") for chain in chains]
    rows += [_row(key, "backup") | {"in_chain": why} for key, why in zip(reserve, reasons, strict=True)]
    spare = [key_type(key.public_key) for key, why in zip(reserve, reasons, strict=True) if why is None]
    missing = missing_backups((key_type(_leaf(chain).public_key) for chain in chains), spare)
    if as_json:
        print_json({"keys": rows, "missing_backups": list(missing)})
    else:
        _show(rows)
    no_reserve = [
        f"{why}: it is not a backup key; dynpin keys new HOST makes one" for why in reasons if why is not None
    ]
    if missing:
        no_reserve.append(f"no backup for {' and '.join(missing)} keys: dynpin keys new HOST --type … makes one")
    if no_reserve:
        finding(None if as_json else "\n".join(no_reserve))


def _leaf(chain: Chain) -> Key:
    """The leaf key of a chain."""
    if chain.certificates:
        return replace(read_key(chain.certificates[0], chain.label), path=chain.path)
    [pin] = chain.pins
    return read_key(chain.path or pin or b"", chain.label)


def _row(key: Key, role: str) -> dict[str, str | None]:
    file = key.label if key.path is None else os.path.relpath(key.path)
    return {"role": role, "type": key_type(key.public_key), "pin": str(key.pin), "file": file}


def _show(rows: list[dict[str, str | None]]) -> None:
    from rich.table import Table  # noqa: PLC0415 - only the text output needs it

    from dynpin.cli.consoles import table_console  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name in ("role", "type", "pin", "file"):
        # Folded, not cut, in a narrow window: half a pin or half a path is useless.
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(row["role"], row["type"], row["pin"], row["file"])
    table_console().print(table)
