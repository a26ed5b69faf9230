"""`dynpin nodes`: the headers of the nodes of a site, from their shared state."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail, finding
from dynpin.cli.options import InventoryOption, JsonOption
from dynpin.cli.printing import print_json, say
from dynpin.cli.site import fetched, inventory_of
from dynpin.middleware.policy.shared import SharedState, SiteDocument
from dynpin.report import rfc3339

__all__ = ["app"]

app = typer.Typer(help="See what the nodes of a site send, and whether they agree.", no_args_is_help=True)


@app.command(name="list")
def list_command(inventory: InventoryOption = None, as_json: JsonOption = False) -> None:
    """Show what each node sends, and what clients may hold of it. The exit code is 1 if the nodes do not agree.

    Example: dynpin nodes list
    """
    from dynpin.deploy.agreement import disagreeing, node_lines  # noqa: PLC0415 - only the text output needs it

    state = _state(inventory)
    document, now = state.copy(), state.now()
    wrong = tuple(disagreeing(document, now))
    if as_json:
        print_json(_as_json(document, now) | {"wrong": list(wrong)})
    else:
        for line in node_lines(document, now):
            say(line)
        for sent in document.past:
            if sent.until(now) > now:
                say(f"held until {rfc3339(sent.until(now))}: {sent.header}, of node {sent.node}")
        if not document.nodes:
            say("no node has announced itself yet: each does so within seconds of its start")
    for line in wrong:
        say(f"dynpin: {line}", err=True)
    if wrong:
        finding()


@app.command(name="forget")
def forget_command(
    name: Annotated[str, typer.Argument(help="The node.")],
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record that a node is gone. Clients may still hold its headers until max-age has passed.

    Example: dynpin nodes forget web-2
    """
    state = _state(inventory)
    if name not in state.copy().nodes:
        fail(f"{state} has no node {name}; dynpin nodes list shows the nodes")
    state.change(lambda document, now: document.forget(name, now))
    if as_json:
        print_json({"node": name, "forgotten": True})
    else:
        say(f"node {name} is forgotten; if it still runs, it is back within seconds")


def _state(inventory: Path | None) -> SharedState:
    site = inventory_of(inventory)
    if site is None:
        fail("there is no dynpin.toml in this folder: name that of the site with --inventory; dynpin init makes one")
    state = fetched(site)
    if state is None:
        fail(f'{site.path} has no line state in [site]: state = "https://COLLECTOR" lets nodes share what they send')
    return state


def _as_json(document: SiteDocument, now: float) -> dict[str, object]:
    return {
        "nodes": [
            {
                "node": name,
                "header": node.header,
                "since": rfc3339(node.since),
                "seen_at": rfc3339(node.seen_at),
                "chains": [list(chain) for chain in node.chains],
                "sender": str(node.sender),
                "doubled": None if node.doubled is None else [str(each) for each in node.doubled],
            }
            for name, node in sorted(document.nodes.items())
        ],
        "held": [
            {"header": sent.header, "node": sent.node, "until": rfc3339(sent.until(now))} for sent in document.sent(now)
        ],
    }
