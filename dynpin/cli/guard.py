"""`dynpin guard NEWCHAIN`: for the deploy hooks of ACME clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.errors import fail, finding
from dynpin.cli.printing import say
from dynpin.cli.rotate import DEFAULT_HISTORY, CapOption, HistoryOption, NowOption, cap_of, moment, read_history
from dynpin.cli.site import DEFAULT_INVENTORY, InventoryOption, site_of
from dynpin.deploy.acme import deploy_hook
from dynpin.deploy.guard import chain_of_file
from dynpin.deploy.guard import guard as hold
from dynpin.deploy.rotation import History, Published
from dynpin.errors import DynpinError, InvalidHeader
from dynpin.header import PublicKeyPins
from dynpin.report import rfc3339

if TYPE_CHECKING:
    from dynpin.deploy.site import SiteInventory

__all__ = ["guard"]


def guard(
    chain: Annotated[
        Path | None,
        typer.Argument(
            metavar="NEWCHAIN", help="The chain that is to be deployed: PEM, leaf first.", show_default=False
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", help="Instead of a history: a header that clients may hold. May be repeated."),
    ] = None,
    inventory: InventoryOption = None,
    history: HistoryOption = DEFAULT_HISTORY,
    cap: CapOption = None,
    now: NowOption = None,
    hook: Annotated[
        str | None,
        typer.Option("--hook", help="Print a deploy hook instead: certbot, lego or acme.sh.", show_default=False),
    ] = None,
    install: Annotated[
        Path, typer.Option("--install", help="With --hook: the folder that the server reads its key from.")
    ] = Path("/etc/ssl/pinned"),
    reload: Annotated[
        str, typer.Option("--reload", help="With --hook: the command that makes the server read it again.")
    ] = "systemctl reload nginx",
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Tell whether deploying NEWCHAIN would lock clients out: exit code 1 if so, with what to do instead.

    It is for the deploy hooks of ACME clients, before the new key is where the server finds it; --hook writes one.
    """
    if hook is not None:
        _print_hook(hook, inventory, history, install, reload)
        return
    if chain is None:
        fail("give the chain that is to be deployed, or --hook for a script that does")
    at = moment(now)
    site = site_of(inventory, is_named_otherwise=bool(header) or (inventory is None and history.exists()))
    try:
        pins = chain_of_file(chain)
        if header:
            kept = _sent_now(header, at)
        elif site is not None:
            kept = _sent_by(site, chain, history, at)
        else:
            kept = read_history(history)
    except OSError as error:
        fail(f"{chain}: {error.strerror or error}")
    except (DynpinError, ValueError) as error:
        fail(str(error))
    verdict = hold(kept, pins, at, max_max_age=cap_of(cap))
    if as_json:
        answer = {
            "ok": verdict.ok,
            "reason": verdict.reason,
            "advice": list(verdict.advice),
            "ready_at": None if verdict.ready_at is None else rfc3339(verdict.ready_at),
            "key": str(pins[0]),
        }
        typer.echo(json.dumps(answer, indent=2))
    else:
        say(f"{'fine' if verdict.ok else 'STOP'}: {verdict.reason}.")
        for line in verdict.advice:
            say(f"  {line}")
    if not verdict.ok:
        finding()


def _print_hook(client: str, inventory: Path | None, history: Path, install: Path, reload: str) -> None:
    if inventory is None and DEFAULT_INVENTORY.is_file():
        inventory = DEFAULT_INVENTORY
    try:
        # An ACME client runs it from a folder of its own.
        script = deploy_hook(
            client,
            history=history.absolute(),
            inventory=None if inventory is None else inventory.absolute(),
            folder=install.absolute(),
            reload=reload,
        )
    except ValueError as error:
        fail(str(error))
    typer.echo(script, nl=False)


def _sent_by(site: SiteInventory, chain: Path, history: Path, now: float) -> History:
    """What clients may hold of a site: what its history says, and what its inventory has it send now."""
    if history.exists():
        kept = read_history(history, site.path)
    else:
        # The key that was pinned until a moment ago is in nobody's file any more.
        if any(file.exists() and file.samefile(chain) for file in site.chain_files):
            fail(
                f"{chain} is the deployed chain of {site.path} itself, so what was pinned before it cannot be told: "
                "hold the new chain against the inventory before it is laid there, or keep a history "
                "(dynpin rotate record)"
            )
        from dynpin.deploy.site import sent_on_ramp  # noqa: PLC0415 - read with the inventory

        kept = History(site.hosts[0])
        climbed = sent_on_ramp(site.path)
        if climbed:
            # What the ramp sent with these pins, though it may send less by now.
            kept = kept.adding(Published(climbed[0][0], site.header)).on_ramp(climbed)
    return kept if kept.header == site.header else kept.adding(Published(now, site.header))


def _sent_now(values: list[str], now: float) -> History:
    history = History("this host")
    for value in values:
        try:
            history = history.adding(Published(now, PublicKeyPins.parse(value)))
        except InvalidHeader as error:
            fail(f"--header {value!r}: {error}; dynpin lint says more")
    return history
