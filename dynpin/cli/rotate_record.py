"""`dynpin rotate record` and `repair`: write into the history what is served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from dynpin.cli.errors import fail, reason_of
from dynpin.cli.options import DEFAULT_HISTORY, HistoryOption, InventoryOption, JsonOption, NowOption, moment
from dynpin.cli.printing import print_json, say
from dynpin.cli.rotate_output import end_with, status_as_json
from dynpin.cli.rotate_site import as_sent, change, differences, earlier_history, inventory_beside, kept_at
from dynpin.cli.site import inventory_of
from dynpin.counts import counted
from dynpin.deploy.rotation import Deployed, Event, History, Published, status
from dynpin.header import PublicKeyPins
from dynpin.hosts import canonical_host
from dynpin.pins import Pin
from dynpin.report import rfc3339

if TYPE_CHECKING:
    from dynpin.middleware.policy import Chain, Inventory

__all__ = ["record", "repair"]

HeaderOption = Annotated[
    str | None,
    typer.Option("--header", help="The header value of every response from now on.", show_default=False),
]
NoHeaderOption = Annotated[bool, typer.Option("--no-header", help="No response has the header from now on.")]
ChainOption = Annotated[
    Path | None, typer.Option("--chain", help="The chain that every node shows from now on.", show_default=False)
]
HostOption = Annotated[str | None, typer.Option("--host", help="The host; needed once.", show_default=False)]


class Served(NamedTuple):
    """What is served, from options or an inventory.

    Attributes:
        header: the header; None if none is sent, or if it is unknown.
        has_header: whether it is known.
        chain: the chain, or None if it is unknown.
        pins: the pins that every client finds in the chain, leaf first.
        host: what the inventory calls the site.
        hosts: the names in the inventory.
        source: the inventory.
    """

    header: PublicKeyPins | None
    has_header: bool
    chain: Chain | None
    pins: tuple[Pin, ...]
    host: str | None = None
    hosts: tuple[str, ...] = ()
    source: str = ""

    def events(self, at: float) -> list[Event]:
        """What to record at this time, in seconds since the epoch, UTC."""
        events: list[Event] = [Published(at, self.header)] if self.has_header else []
        return events if self.chain is None else [*events, Deployed(at, self.pins)]


def record(
    header: HeaderOption = None,
    no_header: NoHeaderOption = False,
    chain: ChainOption = None,
    host: HostOption = None,
    inventory: InventoryOption = None,
    history: HistoryOption = DEFAULT_HISTORY,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record what is served: to begin a history, and whenever something was changed without `rotate next --done`.

    With an inventory it records the header that the inventory makes, and the chain that it names. Nothing is recorded
    twice. The exit code is 1 if clients are locked out, or if the inventory does not agree with the history.

    Example: dynpin rotate record
    """
    at = moment(now)
    site = inventory_beside(inventory, history)
    served = _served(header, no_header, chain, inventory, at, site=site, beside=history)
    if served is None:
        fail(
            "there is nothing to record: go to the folder of dynpin.toml, name that file with --inventory, or give "
            "--header VALUE, --no-header or --chain FILE"
        )
    where = kept_at(history, site)
    earlier = begin = None
    if not where.exists():
        earlier = earlier_history(history, site)
        begin = earlier or _begun(host or served.host, history)
    before = 0

    def edit(kept: History) -> History:
        nonlocal before
        before = 0 if begin else len(kept.events)
        _refuse_other_host(kept, host, served)
        kept = as_sent(kept, site)
        _refuse_without_backup(kept, served, site)
        for event in served.events(at):
            kept = kept.with_event(event)
        return kept

    kept = change(where, edit, begin)
    stands = status(kept, at)
    differs = differences(kept, site, at)
    count = len(kept.events)
    if as_json:
        recorded = {"history": str(where), "events": count, "recorded": count - before}
        print_json(recorded | status_as_json(kept, stands, differs))
    elif count == before:
        say(f"nothing new: {where} has it already, with {counted(count, 'event')} of {kept.host}")
    else:
        say(f"recorded in {where}: {counted(count, 'event')} of {kept.host}")
        if earlier is not None:
            say(f"It continues {history}. Commands no longer read that file.")
        elif begin is not None:
            say("It begins today. If other pins were sent before: dynpin rotate repair --anew takes that into account.")
    # A header may be recorded before its chain: the two cannot be compared yet.
    end_with(stands.locked_out if served.chain is not None else (), differs)


def repair(
    anew: Annotated[bool, typer.Option("--anew", help="Assume that events are missing.")] = False,
    header: HeaderOption = None,
    no_header: NoHeaderOption = False,
    chain: ChainOption = None,
    host: HostOption = None,
    inventory: InventoryOption = None,
    history: HistoryOption = DEFAULT_HISTORY,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Repair a damaged history, or begin one whose past is lost. Unknown events never count as safe.

    Every event that can be read is saved, and the damaged file stays beside the new one. If events are missing, dynpin
    assumes that clients hold a header with only the deployed key, for as long as the longest max-age. If the nodes
    share a state without a history, it continues the earlier file.

    Example: dynpin rotate repair
    """
    from dynpin.deploy.rotation.repair import Saved, in_order, salvage, with_unknown  # noqa: PLC0415
    from dynpin.middleware.policy import read_file  # noqa: PLC0415

    at = moment(now)
    site = inventory_beside(inventory, history)
    where = kept_at(history, site)
    is_shared = site is not None and site.state is not None
    # The file from before the nodes shared a history. What was sent since then is in no file.
    goes_on = is_shared and history.exists() and not where.exists()
    found: list[Saved] = []

    def edit(saved: Saved) -> History:
        saved = salvage(read_file(history)) if goes_on else saved
        found.append(saved)
        if saved.is_complete and not anew and not goes_on:
            return in_order(
                saved, saved.host or _begun(host or (None if site is None else site.label), history).host, at
            )
        served = _served(header, no_header, chain, inventory, at, site=site, beside=history)
        if served is None or served.chain is None or not served.has_header:
            fail("events are missing, so say what is served now: --inventory FILE, or --header VALUE and --chain FILE")
        named = saved.host or _begun(host or served.host, history).host
        kept = in_order(saved, named, at)
        _refuse_other_host(kept, host, served)
        return with_unknown(kept, served.header, served.pins, at, longest=_longest(site))

    try:
        kept, aside = where.repair(edit)
    except OSError as error:
        fail(reason_of(error, f"{where} cannot be repaired, and is as it was"))
    saved = found[-1]
    assumed = [policy for policy in status(kept, at).held if policy.is_assumed]
    if as_json:
        print_json(
            {
                "history": str(where),
                "host": kept.host,
                "saved": len(saved.events),
                "unread": list(saved.unread),
                "complete": saved.is_complete,
                "damaged": aside and str(aside),
                "held_until": rfc3339(max(policy.until for policy in assumed)) if assumed else None,
            }
        )
        return
    say(f"{where}: {counted(len(saved.events), 'event')} of {kept.host} saved")
    for line in saved.unread:
        say(f"  not read: {line}")
    if goes_on:
        say(f"  It continues {history}. Commands no longer read that file.")
    if saved.is_cut and (goes_on or aside is not None):
        say("  The file as a whole cannot be read: other events may be missing without a trace.")
    if assumed:
        until = rfc3339(max(policy.until for policy in assumed))
        say(f"  Until {until} dynpin assumes that clients hold a header with only {assumed[-1].header.pins[0]}.")
    if aside is not None:
        say(f"  The damaged file is now {aside}.")


def _served(
    header: str | None,
    no_header: bool,
    chain: Path | None,
    inventory: Path | None,
    now: float,
    *,
    site: Inventory | None,
    beside: Path,
) -> Served | None:
    """What is served, from the options or the inventory; None if neither says anything.

    Args:
        header: the value of ``--header``.
        no_header: ``--no-header``.
        chain: the file of ``--chain``.
        inventory: the file of ``--inventory``.
        now: seconds since the epoch, UTC.
        site: the inventory that was named, or is beside the history.
        beside: the file of the history.
    """
    from dynpin.middleware.policy import certain_pins, read_chain  # noqa: PLC0415 - here and in no completion

    is_told = header is not None or chain is not None or no_header
    if is_told and inventory is not None:
        fail("give --inventory, or --header, --no-header and --chain")
    if not is_told:
        found = inventory_of(inventory, beside=beside)
        if found is None:
            return None
        built, source = found.build(now), str(found.path)
        if len(built.chains) != 1:
            fail(f"{source} names {len(built.chains)} chains: record each in a history of its own, with --chain")
        return Served(built.header, True, built.chains[0], built.shown[0], found.label, found.hosts, source)
    parsed = None if header is None else PublicKeyPins.parse(header)
    deployed = None if chain is None else read_chain(chain, "--chain")
    pins = () if deployed is None else certain_pins(deployed, () if site is None else site.roots)
    return Served(parsed, header is not None or no_header, deployed, pins)


def _begun(host: str | None, history: Path) -> History:
    """A history without events; or end the command."""
    if host is None:
        if history.exists():
            fail(f"{history} names no host that can be read: name it with --host, or --inventory")
        fail(f"{history} does not exist yet: begin it with --host NAME --header VALUE --chain FILE")
    return History(canonical_host(host))


def _refuse_other_host(history: History, host: str | None, served: Served) -> None:
    from dynpin.middleware.policy import covers  # noqa: PLC0415 - here and in no completion

    if host is not None and _begun(host, Path()).host != history.host:
        fail(f"this is the history of {history.host}, not of {host}: name another file with --history")
    if served.hosts and not covers(served.hosts, history.host):
        fail(
            f"this is the history of {history.host}, and {served.source} is for {', '.join(served.hosts)}: name the "
            "files of one site"
        )


def _refuse_without_backup(history: History, served: Served, site: Inventory | None) -> None:
    """Refuse a header whose pins are all in the chain that clients validate: they do not note it (§2.5)."""
    from dynpin.middleware.policy import Chain, Key, in_chain  # noqa: PLC0415 - here and in no completion

    header = served.header if served.has_header else history.header
    chain = served.chain or (Chain("the recorded chain", history.chain, None) if history.chain else None)
    if header is None or chain is None or not header.max_age:
        return
    roots = () if site is None else site.roots
    reasons = [in_chain(Key(str(pin), pin), [chain], roots) for pin in header.pins]
    if all(reasons):
        shown = "; ".join(reason for reason in reasons if reason)
        fail(
            f"the header names no Backup Pin, so clients ignore it (RFC 7469 §2.5): {shown}. Take a key that is "
            "not deployed:  dynpin keys new HOST"
        )


def _longest(site: Inventory | None) -> int:
    """The longest max-age that a site may have sent, in seconds, from its inventory."""
    from dynpin.middleware.policy import LONGEST_MAX_AGE  # noqa: PLC0415 - here and in no completion

    max_age = None if site is None else site.max_age
    return max(LONGEST_MAX_AGE, max_age if isinstance(max_age, int) else 0)
