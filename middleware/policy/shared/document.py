"""What the nodes of one site share, as a value: no file, no network, no clock.

The rules stand here. A node announces a header before it sends it, and sends no header whose clients would refuse
another node (RFC 7469 §2.6). What is deployed is announced as it is.
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
    "Sent",
    "SiteDocument",
    "Speaker",
    "is_gentler",
    "is_noted",
]

# In bytes of JSON. A site with 64 nodes and a rotation a month for years has a quarter of it.
LONGEST_STATE = 256 * 1024
# The processes of a node send the header before for some seconds after the next one was announced.
_FOLLOWS_WITHIN = 60.0
# What has ended stays for a day: a clock that is ahead must not make anything be forgotten early.
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
    """A header as it stands in a document, with its name.

    Raises:
        ValueError: if it is none.
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
    """Where the ramp of one report-uri stands, and since when which max-age was sent (None: report-only)."""

    token: Annotated[str, StringConstraints(max_length=128)]
    position: Position
    sent: Annotated[tuple[tuple[_Time, int | None], ...], Field(max_length=_MOST_STEPS)] = ()


class Speaker(_Shape):
    """Who speaks for a node: the name of the machine, and a random number that no other node has."""

    machine: Name
    identity: _Identity

    def __str__(self) -> str:
        return f"{self.machine} ({self.identity})"


class NodeState(_Shape):
    """One node, as it told last.

    Attributes:
        header: the header that it sends; None: none.
        since: since when.
        chains: the pins of the chains that it has deployed; of two nodes under one name, those of both.
        seen_at: when it was heard; a node that runs is heard every HEARD_EVERY seconds.
        speaker: who spoke for it.
        former: the numbers of those who spoke for it before; a node that was installed again has another number.
        doubled: the two who speak for it by turns, where that was seen: two nodes under one name. It stays until
            somebody says that the node is gone.
    """

    header: _Header | None
    since: _Time
    chains: _Chains
    seen_at: _Time
    speaker: Speaker
    former: Annotated[tuple[_Identity, ...], Field(max_length=_MOST_FORMER)] = ()
    doubled: tuple[Speaker, Speaker] | None = None

    @property
    def policy(self) -> PublicKeyPins | None:
        """The header, parsed."""
        return None if self.header is None else parse_field(self.header)


class Sent(_Shape):
    """A header that a node sent, from `first_at` until `last_at`; None: it is sent now."""

    node: Name
    header: _Header
    first_at: _Time
    last_at: _Time | None

    @property
    def policy(self) -> PublicKeyPins:
        """The header, parsed."""
        return parse_field(self.header)

    def until(self, now: float) -> float:
        """When the last client forgets it; while it is sent, as if that stopped now."""
        return (now if self.last_at is None else self.last_at) + (self.policy.max_age or 0)


class HistoryState(_Shape):
    """The history of a rotation, as ``dynpin rotate`` writes it."""

    version: Literal[1]
    host: Annotated[str, StringConstraints(max_length=253)]
    events: Annotated[list[_Event], Field(max_length=2000)]


@dataclass(frozen=True, slots=True)
class Objections:
    """Why the header that a node wants to send must wait, or is none.

    Attributes:
        refusing: a header that clients may hold and that does not accept a chain of this node; None if there is
            none. Where there is one the node sends no header.
        waits_for: nodes whose chains the wanted header does not accept; the header before is sent meanwhile.
        doubled: the two nodes that bear this name; neither sends anything that is not gentler than before.
    """

    refusing: Sent | None = None
    waits_for: tuple[str, ...] = ()
    doubled: tuple[Speaker, Speaker] | None = None


class SiteDocument(_Shape):
    """What the nodes of one site share. Times are seconds since the epoch, UTC, by the collector's clock.

    Attributes:
        revision: counts the changes; a collector that shows a lower one than before has lost some.
        ramp: the position on the ramp, where there is one.
        nodes: what each node sends and shows, by its name.
        past: headers that were sent and that clients may still hold.
        history: the history of the rotation, where one is kept.
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
            ValueError: if it is none; the message says where it is wrong, and quotes nothing.
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
        """The document as text."""
        return self.model_dump_json()

    def with_changes(self, **changes: object) -> SiteDocument:
        """The document with other members."""
        return self.model_copy(update=changes)

    # -- what clients may hold ----------------------------------------------------------------------------------------

    def sent(self, now: float | None = None) -> Iterator[Sent]:
        """Every header that clients may have noted, former ones first; with `now`, those that they may still hold."""
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
        """The other nodes that show a chain which clients of this header would refuse."""
        if not is_noted(header):
            return ()
        pins = {str(pin) for pin in header.pins}
        return tuple(
            name
            for name, other in self.nodes.items()
            if name != node and any(pins.isdisjoint(chain) for chain in other.chains)
        )

    # -- what nodes say -----------------------------------------------------------------------------------------------

    def objections(
        self, node: str, wanted: PublicKeyPins | None, chains: Sequence[Sequence[str]], now: float
    ) -> Objections:
        """What stands against a header; the arguments are those of :meth:`announce`."""
        me = self.nodes.get(node)
        # max-age=0 locks nobody out, and is how those are let go who hold what refuses this node (RFC 7469 §2.3.1).
        unpins = wanted is not None and not wanted.max_age and not wanted.report_only
        refusing = None if unpins else self.refusing(chains, now)
        waits_for = () if wanted is None or refusing is not None else self.unaccepted(wanted, node)
        return Objections(refusing, waits_for, None if me is None else me.doubled)

    def announce(
        self, node: str, wanted: PublicKeyPins | None, chains: Sequence[Sequence[str]], now: float, speaker: Speaker
    ) -> SiteDocument:
        """The document with what a node may send from now on, as all others will see it.

        Args:
            node: its name.
            wanted: the header that its files make; None: none.
            chains: the pins of each chain that it has deployed, leaf first.
            now: seconds since the epoch, UTC, by the collector's clock.
            speaker: who says so. Who comes back after another one spoke is a second node under this name.
        """
        me = self.nodes.get(node)
        shown = tuple(tuple(chain) for chain in chains)
        if me is not None and (me.doubled or speaker.identity in me.former):
            # What was announced stays; the others wait for the chains of both.
            doubled = me.doubled or (me.speaker, speaker)
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
            is_same = me.speaker.identity == speaker.identity
            if is_same and (me.header, me.chains) == (header, shown) and 0 <= now - me.seen_at < HEARD_EVERY:
                return self
            since = me.since if me.header == header else now
            former = me.former if is_same else (*me.former, me.speaker.identity)[-_MOST_FORMER:]
        after = NodeState(header=header, since=since, chains=shown, seen_at=now, speaker=speaker, former=former)
        return self.with_changes(nodes=self.nodes | {node: after}, past=self._past(node, now, is_sent_on=header))

    def forget(self, node: str, now: float) -> SiteDocument:
        """The document without a node that is gone: it sends nothing from now on, and what it sent may be held."""
        nodes = {name: each for name, each in self.nodes.items() if name != node}
        return self.with_changes(nodes=nodes, past=self._past(node, now, is_sent_on=None))

    def _past(self, node: str, now: float, is_sent_on: str | None) -> tuple[Sent, ...]:
        """What was sent, with what this node sent until now; a header stands there once, whichever nodes sent it."""
        past = {each.header: each for each in self.past if each.until(now) + _MARGIN > now}
        me = self.nodes.get(node)
        if me is not None and me.header not in (None, is_sent_on) and is_noted(parse_field(me.header)):
            before = past.pop(me.header, None)
            first_at = me.since if before is None else min(before.first_at, me.since)
            past[me.header] = Sent(node=node, header=me.header, first_at=first_at, last_at=now + _FOLLOWS_WITHIN)
        return tuple(past.values())

    # -- the ramp -----------------------------------------------------------------------------------------------------

    def with_position(self, token: str, before: Position | None, after: Position, now: float) -> SiteDocument:
        """The document with the ramp at another position; what is sent, and since when, is written down."""
        sent = self.ramp.sent if self.ramp is not None else ()
        # Whatever the clock did: what is sent from now on was sent after all else.
        at = max([now, *(at for at, _ in sent[-1:])])
        if before is None or before.max_age != after.max_age:
            sent = (*sent, (at, after.max_age))
        return self.with_changes(ramp=RampState(token=token, position=after, sent=sent[-_MOST_STEPS:]))


def is_noted(header: PublicKeyPins) -> bool:
    """Whether a client that meets this header holds it afterwards (RFC 7469 §2.3.2, §2.3.3)."""
    return not header.report_only and bool(header.max_age)


def is_gentler(header: PublicKeyPins, than: PublicKeyPins) -> bool:
    """Whether clients of a header accept all that clients of another one do, and forget as soon or sooner.

    Such a header may be sent before it is announced.
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
