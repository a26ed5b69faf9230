"""Check a live site: compare what it sends with the inventory and the history, and lint it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynpin.durations import duration
from dynpin.header import ENFORCE_NAME, PublicKeyPins
from dynpin.middleware.policy import Inventory, Node
from dynpin.pins import Pin, chain_pins
from dynpin.recovery import Recovery

from .lint import Circumstances, Finding, HeaderField, Observed, lint
from .lint.holdings import Holdings
from .live import Look, Site, look_at
from .live_fields import fields_of_look, node_name
from .reach import LIST_URI
from .rotation import History, disagreements, held, locked_out
from .rotation.sights import sight_of_node

if TYPE_CHECKING:
    from .recovery import PublishedList

__all__ = ["Checked", "check_site"]

_ATTACK = "hostile-pinning-by-misissued-certificate"


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a check.

    Attributes:
        site: the site.
        look: the answers.
        fields: the linted fields.
        results: the findings, each with its field.
        lacking: the pins of the inventory that some response does not have; empty if no response has a header.
        not_deployed: for each node, the key that it shows, if the inventory does not call it deployed.
        unseen: the nodes of the inventory that did not answer.
        remarks: sentences about `lacking`, `not_deployed`, `unseen`, and faults of the signed list.
        signed_list: the signed list, if it was requested and there is a root to verify it.
    """

    site: Site
    look: Look
    fields: tuple[HeaderField, ...]
    results: tuple[tuple[HeaderField, Finding], ...]
    lacking: tuple[Pin, ...]
    not_deployed: dict[str, str]
    unseen: tuple[str, ...]
    remarks: tuple[str, ...]
    signed_list: PublishedList | None = None

    @property
    def silent(self) -> tuple[str, ...]:
        """The nodes and ports without an answer, each with the reason."""
        return tuple(
            f"{each.address} port {each.port}: {'no plain http: ' if each.scheme == 'http' else ''}{each.failure}"
            for each in self.look.silent
        )

    @property
    def silence(self) -> str:
        """Why nothing could be checked; empty if there was an answer."""
        if self.look.responses:
            return ""
        why = "; ".join(self.silent) or "no address"
        return f"{self.site.host} does not answer: {why}. Check that the server runs, and its address and port"

    @property
    def has_header(self) -> bool:
        """Whether any response has a pinning field."""
        return any(each.value is not None for each in self.fields)


def check_site(
    site: Site,
    holdings: Holdings | None,
    *,
    known: Circumstances,
    history: History | None,
    now: float,
    say: Callable[[str], None],
    signed_list: str | None = None,
) -> Checked:
    """Look at a site, and lint what it sends.

    Args:
        site: the site.
        holdings: the content of its inventory, or None. It must be this host's.
        known: circumstances that are already known.
        history: the history of its rotation, or None.
        now: seconds since the epoch, UTC.
        say: called with each step, to show progress.
        signed_list: where to read the signed list: a folder, or ``LIST_URI`` for the recovery-uri; None for no list.

    Raises:
        ModuleNotFoundError: if `signed_list` is given and python-tuf is missing.
    """
    look = look_at(site, say)
    if holdings is not None:
        # The chain is the shown one.
        known = replace(holdings.circumstances(known), chain_pins=known.chain_pins)
    fields = fields_of_look(site, look, known, now, say)
    if holdings is not None:
        fields = tuple(_held_against(each, fields, holdings) for each in fields)
        observed = holdings.observed
        if any(each.circumstances.chain_pins for each in fields):
            # The live chain shows its root.
            observed = tuple(each for each in observed if each.fault != "backup-pin-unproven")
        if observed:
            fields = (*fields, HeaderField(holdings.name, ENFORCE_NAME, None, Circumstances(observed=observed)))
    if history is not None:
        fields = (*(_by_history(each, fields, history, now) for each in fields), *_differs(look, history, now))
    results = _results(fields)
    listed: PublishedList | None = None
    of_list: tuple[str, ...] = ()
    if signed_list is not None:
        say(f"the signed list ({signed_list})")
        listed, of_list = _of_list(site, fields, holdings, signed_list, now)
    if holdings is None:
        return Checked(site, look, fields, results, (), {}, (), of_list, listed)
    is_attack = any(found.fault == _ATTACK for _, found in results)
    lacking = {} if is_attack else _lacking(fields, holdings)
    strange = {} if is_attack else _strange(site, look, holdings)
    unseen = tuple(_unseen(look, holdings))
    remarks = (
        *_of_dns(site),
        *_of_lacking(site, lacking),
        *_of_strange(site, strange, holdings),
        *_of_unseen(unseen),
        *of_list,
    )
    shown = {name: str(pin) for name, pin in strange.items()}
    return Checked(site, look, fields, results, tuple(lacking), shown, unseen, remarks, listed)


def _results(fields: Sequence[HeaderField]) -> tuple[tuple[HeaderField, Finding], ...]:
    results: dict[tuple[str, str, str], tuple[HeaderField, Finding]] = {}
    for each in fields:
        for found in lint(each.value, name=each.name, circumstances=each.circumstances):
            # The same fault at several nodes is one finding.
            results.setdefault((each.name, found.fault, found.message), (each, found))
    return tuple(results.values())


# -- the history ------------------------------------------------------------------------------------------------------


def _by_history(each: HeaderField, fields: Sequence[HeaderField], history: History, now: float) -> HeaderField:
    """The field, with the pins that clients hold by the history: they decide whether the chain locks clients out."""
    circumstances = each.circumstances
    recorded = _recorded_name(history)
    sent = [other.name.lower() for other in fields if other.value is not None]
    # A report-only field beside the enforced one does not change the mode.
    if each.value is not None and recorded is not None and recorded.lower() not in sent:
        circumstances = replace(circumstances, previous_name=recorded)
    if circumstances.chain:
        shown = [Pin.from_base64(text) for text in circumstances.chain]
        refused = locked_out(held(history, now), shown)
        if refused:
            worst = max(refused, key=lambda policy: policy.until)
            age = 0.0 if worst.last_at is None else now - worst.last_at
            circumstances = replace(circumstances, previous_header=str(worst.header), previous_header_age_s=age)
    return replace(each, circumstances=circumstances)


def _recorded_name(history: History) -> str | None:
    """The name of the field that the site sends, from its history; None if it sends none."""
    return None if history.header is None else history.header.name


def _differs(look: Look, history: History, now: float) -> Iterator[HeaderField]:
    """One field without a value that lists the nodes which send or show something that is not in the history."""
    pages = {each.node: each for each in reversed(look.secure) if each.is_verified}
    for page in pages.values():
        missing = disagreements(history, sight_of_node(page), now)
        observed = tuple(Observed("history-differs", f"{each.place}: {each.what}") for each in missing)
        if observed:
            yield HeaderField(
                f"the history, and {missing[0].place}", ENFORCE_NAME, None, Circumstances(observed=observed)
            )


# -- the inventory ----------------------------------------------------------------------------------------------------


def _held_against(each: HeaderField, fields: Sequence[HeaderField], holdings: Holdings) -> HeaderField:
    """The field, with its differences from the field that the inventory makes."""
    header, made = each.header, holdings.header
    if header is None or made is None or each.circumstances.scheme != "https":
        return each
    ramp = holdings.inventory.ramp
    levels = ramp.levels if ramp is not None and ramp.is_on else ()
    names = {other.name for other in fields if other.value is not None}
    if levels:
        # The server may be a step ahead of the local file of the ramp.
        differences = list(_off_the_ramp(header, levels, holdings.inventory))
    elif header.report_only == made.report_only:
        differences = list(_differences(header, made, _WORDS.keys()))
    else:
        # A second field beside the right one is a trial.
        differences = [] if made.name in names else [f"{header.name} is sent, but the file says {made.name}"]
    observed = [Observed("header-differs-from-inventory", difference) for difference in differences]
    return replace(each, circumstances=replace(each.circumstances, observed=(*each.circumstances.observed, *observed)))


def _off_the_ramp(header: PublicKeyPins, levels: Sequence[int | None], inventory: Inventory) -> Iterator[str]:
    if header.max_age not in levels and not header.report_only:
        yield f"max-age is {_seconds(header.max_age)}, which is not a step of the file's ramp"
    # In report-only the ramp sends another report-uri. Recovery goes only with pins that clients keep.
    open_ones = (
        {"recovery"} if header.max_age == 0 else {"recovery", "report_uri"} if header.report_only else set[str]()
    )
    yield from _differences(header, inventory, _WORDS.keys() - open_ones - {"max_age"})


def _differences(header: PublicKeyPins, made: PublicKeyPins | Inventory, names: Collection[str]) -> Iterator[str]:
    """How the directives of these names differ from the file's. The keys of pins are compared in :func:`_lacking`."""
    for name, words in _WORDS.items():
        sent, wanted = getattr(header, name), getattr(made, name)
        if name in names and sent != wanted:
            yield words(sent, wanted)


# What to say if a field of PublicKeyPins has another value, given second, in the file.
_WORDS: Mapping[str, Callable[[Any, Any], str]] = {
    "max_age": lambda sent, file: f"max-age is {_seconds(sent)}, but the file says {_seconds(file)}",
    "include_subdomains": lambda sent, _: "it has includeSubDomains" if sent else "it lacks includeSubDomains",
    "recovery": lambda sent, file: f"recovery is {_recovery(sent)}, but the file says {_recovery(file)}",
    "report_uri": lambda sent, file: f"report-uri is {sent or 'not sent'}, but the file says {file or 'none'}",
}


def _seconds(max_age: int | None) -> str:
    return "not there" if max_age is None else f"{duration(max_age)} ({max_age} seconds)"


def _lacking(fields: Sequence[HeaderField], holdings: Holdings) -> dict[Pin, str]:
    """The pins of the inventory that some response does not have, each with a message."""
    sent = [each for each in fields if each.value is not None and each.circumstances.scheme == "https"]
    name = None if holdings.header is None else holdings.header.name
    meant = [each for each in sent if each.name == name] or sent
    found: dict[Pin, str] = {}
    labels = {key.pin: key.label for key in holdings.backups}
    for pin in holdings.pins if meant else ():
        lacks = next((each for each in meant if each.header is None or pin not in each.header.pins), None)
        if lacks is None:
            continue
        if pin in labels and pin not in holdings.deployed:
            found[pin] = (
                f"does not send {pin} in its {lacks.name}, the backup key {labels[pin]} of {holdings.name}: clients "
                "that visit now will refuse that key when it is deployed"
            )
        else:
            label = next((chain.label for chain in holdings.chains if pin in chain.pins), "a key in use")
            found[pin] = (
                f"does not send {pin} in its {lacks.name}, the deployed key of {label}, which {holdings.name} names: "
                "clients do not pin the key that the server should show"
            )
    return found


def _strange(site: Site, look: Look, holdings: Holdings) -> dict[str, Pin]:
    """For each node whose chain has none of the inventory's deployed keys: the pin of its leaf."""
    shown = {node_name(site, each): tuple(chain_pins(each.served)) for each in look.secure if each.served}
    return {name: pins[0] for name, pins in shown.items() if pins and holdings.deployed.isdisjoint(pins)}


def _unseen(look: Look, holdings: Holdings) -> Iterator[str]:
    silent = {each.node: each for each in look.silent if each.scheme == "https"}
    for text in holdings.inventory.nodes:
        if (look_there := silent.get(Node.parse(text))) is not None:
            yield f"{text}: {look_there.failure}"


def _of_lacking(site: Site, lacking: dict[Pin, str]) -> Iterator[str]:
    for what in lacking.values():
        yield f"{site.host} {what}"


def _of_strange(site: Site, strange: dict[str, Pin], holdings: Holdings) -> Iterator[str]:
    labels = {key.pin: key.label for key in holdings.backups}
    for node, pin in strange.items():
        if pin in labels:
            yield (
                f"{site.host} shows {pin} at {node}, the key that {holdings.name} has as the backup {labels[pin]}: has "
                "the server loaded the certificate in keys? If this key is deployed on purpose, name its "
                "chain in keys, and the next key in backups"
            )
        else:
            yield (
                f"{site.host} shows {pin} at {node}, which is not a deployed key of {holdings.name}: has the server "
                "loaded the certificate in keys? A header about a key that is not served locks clients out"
            )


def _of_dns(site: Site) -> Iterator[str]:
    if site.dns_failure:
        yield (
            f"{site.host} has no address in the DNS ({site.dns_failure}): only the nodes of the inventory were looked "
            "at. --address looks at one without asking the DNS"
        )


def _of_unseen(unseen: Sequence[str]) -> Iterator[str]:
    for each in unseen:
        yield f"a node of [site] nodes gave no answer, so it is unknown what it sends: {each}"


def _of_list(
    site: Site,
    fields: Sequence[HeaderField],
    holdings: Holdings | None,
    place: str,
    now: float,
) -> tuple[PublishedList | None, tuple[str, ...]]:
    """The signed list and its faults. A client uses the header that is sent, not the inventory."""
    from .recovery import list_faults, read_published  # noqa: PLC0415 - python-tuf, for those who ask for it

    sent = [each for each in fields if each.name == ENFORCE_NAME and each.circumstances.scheme == "https"]
    headers = {str(each.header): each for each in sent if each.header is not None}
    named = [each.header.recovery for each in headers.values() if each.header is not None and each.header.recovery]
    inventory = None if holdings is None else holdings.inventory.recovery
    recovery = named[0] if named else inventory
    if recovery is None:
        return None, (f"{site.host} names no recovery-root, so no signed list can be checked",)
    folder = None if place == LIST_URI else Path(place)
    listed = read_published(recovery, now, folder=folder, context=site.context, seconds=3 * site.timeout)
    problems = list(listed.problems)
    for each in headers.values() if listed.pins is not None else ():
        chain = [Pin.from_base64(text) for text in each.circumstances.chain or ()]
        assert each.header is not None and listed.pins is not None  # noqa: S101, PT018 - see above
        problems += list_faults(listed.pins, site.host, each.header, [chain] if chain else [])
    return listed, tuple(dict.fromkeys(problems))


def _recovery(recovery: Recovery | None) -> str:
    return "not sent, or malformed" if recovery is None else f"{recovery.root_text} at {recovery.uri}"
