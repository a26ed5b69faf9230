"""The shared state of a site's nodes, as a value: no file, no network, no clock.

The rules: a node announces a header before it sends it. It sends no header whose clients would refuse another node
(RFC 7469 §2.6). It announces the deployed chains without a check.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from dynpin.errors import InvalidHeader
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME, PublicKeyPins
from dynpin.pins import Pin

from ..steps import Position

__all__ = [
    "HEARD_EVERY",
    "LONGEST_STATE",
    "HistoryState",
    "NodeState",
    "Objections",
    "RampState",
    "Sender",
    "Sent",
    "SiteDocument",
    "is_gentler",
    "is_noted",
]

# In bytes of JSON. A site with 64 nodes and a rotation a month for years needs a quarter of it.
LONGEST_STATE = 256 * 1024
# The processes of a node still send the old header for some seconds after the new one was announced.
_FOLLOWS_WITHIN = 60.0
# Keep what has ended for one more day, since a clock may be ahead.
_MARGIN = 86_400.0
# How often a node that runs says so, in seconds, if it has nothing else to tell.
HEARD_EVERY = 600.0
_MOST_STEPS = 400
# A container without a disk of its own has a new number at each start.
_MOST_FORMER = 32
_MOST_CHAINS = 8


def _header(text: str) -> str:
    parse_field(text)
    return text


def parse_field(text: str) -> PublicKeyPins:
    """Read a header of a document: its name and its value.

    Raises:
        ValueError: if it is not a header.
    """
    name, _, value = text.partition(": ")
    if name not in (ENFORCE_NAME, REPORT_ONLY_NAME):
        raise ValueError(f"a header begins with {ENFORCE_NAME}: or {REPORT_ONLY_NAME}:")
    try:
        return PublicKeyPins.parse(value, report_only=name == REPORT_ONLY_NAME)
    except InvalidHeader as error:
        raise ValueError(str(error)) from None


def _pin(text: str) -> str:
    Pin.from_base64(text)
    return text


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_Time = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
_Header = Annotated[str, StringConstraints(max_length=8192 + 64), AfterValidator(_header)]
_PinText = Annotated[str, AfterValidator(_pin)]
_Chains = Annotated[tuple[Annotated[tuple[_PinText, ...], Field(max_length=10)], ...], Field(max_length=_MOST_CHAINS)]
_Identity = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
_Text = Annotated[str, StringConstraints(max_length=8192)]
_Event = dict[Name, bool | _Text | Annotated[list[_PinText], Field(max_length=64)] | None]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class RampState(_Shape):
    """The position on the ramp of one report-uri, and the history of max-age (None: report-only)."""

    token: Annotated[str, StringConstraints(max_length=128)]
    position: Position
    sent: Annotated[tuple[tuple[_Time, int | None], ...], Field(max_length=_MOST_STEPS)] = ()


class Sender(_Shape):
    """The sender of a node's announcements: the name of the machine, and a random number that no other node has."""

    machine: Name
    identity: _Identity

    def __str__(self) -> str:
        return f"{self.machine} ({self.identity})"


class NodeState(_Shape):
    """One node, from its last announcement.

    Attributes:
        header: the header that it sends, or None.
        since: since when it sends it.
        chains: the pins of its deployed chains; if two nodes have this name, those of both.
        seen_at: the time of the last announcement; a node that runs makes one every HEARD_EVERY seconds.
        sender: the sender of the last announcement.
        former: the numbers of earlier senders; a node that was installed again has another number.
        doubled: the two senders, if two nodes use this name. It stays until somebody says that the node is gone.
    """

    header: _Header | None
    since: _Time
    chains: _Chains
    seen_at: _Time
    sender: Sender
    former: Annotated[tuple[_Identity, ...], Field(max_length=_MOST_FORMER)] = ()
    doubled: tuple[Sender, Sender] | None = None

    @property
    def policy(self) -> PublicKeyPins | None:
        """The header, parsed."""
        return None if self.header is None else parse_field(self.header)


class Sent(_Shape):
    """A header that a node sent, from `first_at` until `last_at`. If `last_at` is None, it is sent now."""

    node: Name
    header: _Header
    first_at: _Time
    last_at: _Time | None

    @property
    def policy(self) -> PublicKeyPins:
        """The header, parsed."""
        return parse_field(self.header)

    def until(self, now: float) -> float:
        """When the last client forgets it. If it is still sent: when it would be if this stopped now."""
        return (now if self.last_at is None else self.last_at) + (self.policy.max_age or 0)


class HistoryState(_Shape):
    """The history of a rotation, written by ``dynpin rotate``."""

    version: Literal[1]
    host: Annotated[str, StringConstraints(max_length=253)]
    events: Annotated[list[_Event], Field(max_length=2000)]


@dataclass(frozen=True, slots=True)
class Objections:
    """Why a node must wait with its new header, or send none.

    Attributes:
        refusing: a header that clients may hold and that does not accept a chain of this node, or None. If there is
            one, the node sends no header.
        waits_for: nodes whose chains the new header does not accept. Until they change, the old header is sent.
        doubled: the two nodes with this name. Neither sends a header that is not gentler than the old one.
    """

    refusing: Sent | None = None
    waits_for: tuple[str, ...] = ()
    doubled: tuple[Sender, Sender] | None = None


class SiteDocument(_Shape):
    """The state that the nodes of one site share. Times are seconds since the epoch, UTC, by the collector's clock.

    Attributes:
        revision: counts the changes. If a collector shows a lower number than before, it has lost changes.
        ramp: the position on the ramp, or None.
        nodes: the header and the chains of each node, by its name.
        past: earlier headers that clients may still hold.
        history: the history of the rotation, or None.
    """

    revision: Annotated[int, Field(ge=0, le=2**53)] = 0
    ramp: RampState | None = None
    nodes: Annotated[dict[Name, NodeState], Field(max_length=64)] = {}
    past: Annotated[tuple[Sent, ...], Field(max_length=256)] = ()
    history: HistoryState | None = None

    @classmethod
    def from_json(cls, text: bytes | str) -> SiteDocument:
        """Read a document.

        Raises:
            ValueError: if it is not a document; the message says where the fault is, and quotes nothing.
        """
        if len(text) > LONGEST_STATE:
            raise ValueError(f"it is longer than {LONGEST_STATE} bytes")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the text"
            raise ValueError(f"{place[:80]}: {first['msg']}") from None

    def to_json(self) -> str:
        """The document, as JSON."""
        return self.model_dump_json()

    def with_changes(self, **changes: object) -> SiteDocument:
        """A copy with other members."""
        return self.model_copy(update=changes)

    # -- headers that clients may hold --------------------------------------------------------------------------------

    def sent(self, now: float | None = None) -> Iterator[Sent]:
        """All headers that clients may have noted, earlier ones first; with `now`, those that they may still hold."""
        yield from (each for each in self.past if now is None or each.until(now) > now)
        for name, node in sorted(self.nodes.items(), key=lambda item: item[1].since):
            if node.header is not None and is_noted(parse_field(node.header)):
                yield Sent(node=name, header=node.header, first_at=node.since, last_at=None)

    def refusing(self, chains: Iterable[Sequence[str]], now: float) -> Sent | None:
        """A header that clients may hold and that does not accept one of these chains (RFC 7469 §2.6)."""
        shown = [frozenset(chain) for chain in chains]
        for each in self.sent(now):
            pins = {str(pin) for pin in each.policy.pins}
            if any(chain.isdisjoint(pins) for chain in shown):
                return each
        return None

    def unaccepted(self, header: PublicKeyPins, node: str) -> tuple[str, ...]:
        """The other nodes with a chain that clients of this header would refuse."""
        if not is_noted(header):
            return ()
        pins = {str(pin) for pin in header.pins}
        return tuple(
            name
            for name, other in self.nodes.items()
            if name != node and any(pins.isdisjoint(chain) for chain in other.chains)
        )

    # -- announcements of nodes ---------------------------------------------------------------------------------------

    def objections(
        self, node: str, wanted: PublicKeyPins | None, chains: Sequence[Sequence[str]], now: float
    ) -> Objections:
        """The objections to a header; for the arguments see :meth:`announce`."""
        me = self.nodes.get(node)
        # max-age=0 locks nobody out. It frees clients whose pins refuse this node (RFC 7469 §2.3.1).
        unpins = wanted is not None and not wanted.max_age and not wanted.report_only
        refusing = None if unpins else self.refusing(chains, now)
        waits_for = () if wanted is None or refusing is not None else self.unaccepted(wanted, node)
        return Objections(refusing, waits_for, None if me is None else me.doubled)

    def announce(
        self, node: str, wanted: PublicKeyPins | None, chains: Sequence[Sequence[str]], now: float, sender: Sender
    ) -> SiteDocument:
        """The document with a node's announcement: the header that it may send from now on.

        Args:
            node: the name of the node.
            wanted: the header of its files, or None.
            chains: the pins of each deployed chain, leaf first.
            now: seconds since the epoch, UTC, by the collector's clock.
            sender: the sender. If a sender comes back after another one, two nodes use this name.
        """
        me = self.nodes.get(node)
        shown = tuple(tuple(chain) for chain in chains)
        if me is not None and (me.doubled or sender.identity in me.former):
            # Keep the announced header. The other nodes must accept the chains of both.
            doubled = me.doubled or (me.sender, sender)
            both = tuple(dict.fromkeys((*me.chains, *shown)))[:_MOST_CHAINS]
            if me.doubled == doubled and me.chains == both and 0 <= now - me.seen_at < HEARD_EVERY:
                return self
            after = me.model_copy(update={"doubled": doubled, "chains": both, "seen_at": now})
            return self.with_changes(nodes=self.nodes | {node: after})
        against = self.objections(node, wanted, chains, now)
        header = None if wanted is None or against.refusing is not None else f"{wanted.name}: {wanted}"
        if against.waits_for:
            header = None if me is None else me.header
        since = now
        former: tuple[str, ...] = ()
        if me is not None:
            is_same = me.sender.identity == sender.identity
            if is_same and (me.header, me.chains) == (header, shown) and 0 <= now - me.seen_at < HEARD_EVERY:
                return self
            since = me.since if me.header == header else now
            former = me.former if is_same else (*me.former, me.sender.identity)[-_MOST_FORMER:]
        after = NodeState(header=header, since=since, chains=shown, seen_at=now, sender=sender, former=former)
        return self.with_changes(nodes=self.nodes | {node: after}, past=self._past(node, now, is_sent_on=header))

    def forget(self, node: str, now: float) -> SiteDocument:
        """The document without a node that is gone. Clients may still hold the headers that it sent."""
        nodes = {name: each for name, each in self.nodes.items() if name != node}
        return self.with_changes(nodes=nodes, past=self._past(node, now, is_sent_on=None))

    def _past(self, node: str, now: float, is_sent_on: str | None) -> tuple[Sent, ...]:
        """The earlier headers, and this node's header until now. A header that several nodes sent is there once."""
        past = {each.header: each for each in self.past if each.until(now) + _MARGIN > now}
        me = self.nodes.get(node)
        if me is not None and me.header not in (None, is_sent_on) and is_noted(parse_field(me.header)):
            before = past.pop(me.header, None)
            first_at = me.since if before is None else min(before.first_at, me.since)
            past[me.header] = Sent(node=node, header=me.header, first_at=first_at, last_at=now + _FOLLOWS_WITHIN)
        return tuple(past.values())

    # -- the ramp -----------------------------------------------------------------------------------------------------

    def with_position(self, token: str, before: Position | None, after: Position, now: float) -> SiteDocument:
        """The document with the ramp at another position. A change of max-age goes into the history."""
        sent = self.ramp.sent if self.ramp is not None else ()
        # The clock may have gone back, but the history must stay in order.
        at = max([now, *(at for at, _ in sent[-1:])])
        if before is None or before.max_age != after.max_age:
            sent = (*sent, (at, after.max_age))
        return self.with_changes(ramp=RampState(token=token, position=after, sent=sent[-_MOST_STEPS:]))


def is_noted(header: PublicKeyPins) -> bool:
    """Whether a client that gets this header stores its pins (RFC 7469 §2.3.2, §2.3.3)."""
    return not header.report_only and bool(header.max_age)


def is_gentler(header: PublicKeyPins, than: PublicKeyPins) -> bool:
    """Whether clients of a header accept everything that clients of another one do, and do not remember it longer.

    A node may send such a header before it is announced.
    """
    if not is_noted(header):
        return True
    return (
        is_noted(than)
        and set(header.pins) >= set(than.pins)
        and (header.max_age or 0) <= (than.max_age or 0)
        and (than.include_subdomains or not header.include_subdomains)
        and header.recovery == than.recovery
    )
