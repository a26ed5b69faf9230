"""The calendar of a site: each event with its changes, as steps in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

from dynpin.errors import InvalidStudy
from dynpin.lab.simulation.site_policy import Pinned, SitePolicy
from dynpin.lab.simulation.study_table import DAY, Table

__all__ = ["ALL", "Attack", "CAChange", "Change", "Compromise", "Event", "Loss", "Mistake", "Rotation", "Site", "Unpin"]

# Means every key, however many there are.
ALL = 1_000

Item = TypeVar("Item")
Successor = Literal["backup", "new"]
Shown = Literal["other-ca", "pinned-ca", "stolen-key", "server"]
Wrong = Literal["key", "max-age", "no-header"]


@dataclass(frozen=True)
class Site:
    """The keys that the operator has deployed, and has in reserve.

    Attributes:
        key: the key that the site shows.
        ca: the CA that signs it.
        backups: the keys in reserve, pinned by the header.
        ca_backups: the CAs in reserve, for policies that pin the CA.
        announced: keys that the header already pins, before they are deployed.
        stolen: the keys that attackers have, each with the CA that signs for it.
        made: how many keys were ever made.
        mistakes: mistakes that are not fixed yet.
        unpinning: whether the header says max-age=0.
    """

    key: str
    ca: str
    backups: tuple[str, ...]
    ca_backups: tuple[str, ...]
    announced: tuple[str, ...] = ()
    stolen: tuple[tuple[str, str], ...] = ()
    made: int = 0
    mistakes: tuple[Mistake, ...] = ()
    unpinning: bool = False

    @classmethod
    def of(cls, policy: SitePolicy) -> Site:
        """The site on day 0."""
        site = cls("key 0", "CA 0", (), tuple(f"CA {n}" for n in range(1, policy.backups + 1)))
        return site.refilled(policy.backups)

    @property
    def chain(self) -> tuple[str, ...]:
        """The keys of the chain that it shows, leaf first."""
        slips = [mistake.key for mistake in self.mistakes if mistake.what == "key"]
        return slips[-1] if slips else self.key, self.ca

    def mistaken(self, what: Wrong) -> bool:
        """Whether the site has this mistake now."""
        return any(mistake.what == what for mistake in self.mistakes)

    def pins(self, pinned: Pinned) -> tuple[str, ...]:
        """The keys that its header pins. It is made from the chain that is shown, even a wrong one."""
        keys = (self.chain[0], *self.announced, *self.backups) if pinned in ("key", "both") else ()
        cas = (self.ca, *self.ca_backups) if pinned in ("ca", "both") else ()
        return keys + cas

    def refilled(self, backups: int) -> Site:
        """The site with as many backups as the policy asks for: new keys replace missing ones."""
        missing = max(0, backups - len(self.backups))
        fresh = tuple(f"key {self.made + n}" for n in range(1, missing + 1))
        return replace(self, backups=self.backups + fresh, made=self.made + missing)

    def moved(self, backups: int, lost: int) -> Site:
        """The site with its first remaining key, after the loss of the deployed key and of further backups."""
        held = (self.key, *self.backups)[lost:]
        site = self if held else replace(self, made=self.made + 1)
        key, *rest = held or (f"key {site.made}",)
        return replace(site, key=key, backups=tuple(rest)).refilled(backups)

    def moved_to_new_ca(self, successor: Successor) -> Site:
        """The site with another CA: the first in reserve, or an unknown one."""
        if successor == "backup" and self.ca_backups:
            ca, *rest = self.ca_backups
        else:
            ca, rest = f"CA of {self.made}", list(self.ca_backups)
        site = replace(self, ca=ca, made=self.made + 1)
        return replace(site, ca_backups=(*rest, f"CA after {site.made}")[: len(self.ca_backups)])


@dataclass(frozen=True)
class Change:
    """A change at one second. It is applied to the site before the event and to the current site."""

    second: int
    apply: Callable[[Site, Site], Site]


@dataclass(frozen=True)
class Rotation:
    """The key is replaced on a day: by the first backup, or by a new key that may have been announced before."""

    second: int
    to: Successor = "backup"
    announced: int = 0

    label = "rotation"

    def changes(self, policy: SitePolicy) -> Iterator[Change]:
        """The steps of this event."""
        if self.to == "backup":
            yield Change(self.second, lambda _, site: site.moved(policy.backups, 1))
            return
        name = f"key of {self.second}"
        if self.announced:
            ahead = max(0, self.second - self.announced)
            yield Change(ahead, lambda _, site: replace(site, announced=(*site.announced, name)))
        yield Change(self.second, lambda _, site: replace(site, key=name, announced=_without(site.announced, name)))


@dataclass(frozen=True)
class Loss:
    """Keys are lost: the deployed one first, then its backups.

    If none is left the site uses a new key, and returns to the old ones if they are found again after a while.
    """

    second: int
    keys: int = ALL
    fixed_after: int = 0

    @property
    def label(self) -> str:
        """The name in pictures."""
        return "all keys lost" if self.keys >= ALL else "key lost" if self.keys == 1 else f"{self.keys} keys lost"

    def changes(self, policy: SitePolicy) -> Iterator[Change]:
        """The steps of this event."""
        yield Change(self.second, lambda _, site: site.moved(policy.backups, self.keys))
        if self.fixed_after:
            yield Change(self.second + self.fixed_after, self._found)

    def _found(self, before: Site, site: Site) -> Site:
        # A site that had a backup stays with it: clients have noted that, and the new backups.
        return site if self.keys <= len(before.backups) else replace(site, key=before.key, backups=before.backups)


@dataclass(frozen=True)
class Compromise:
    """Keys are stolen, the deployed one first. Once it is noticed, the site moves to a key that was not stolen."""

    second: int
    keys: int = 1
    noticed: int = DAY

    label = "key stolen"

    def changes(self, policy: SitePolicy) -> Iterator[Change]:
        """The steps of this event."""
        yield Change(self.second, lambda _, site: replace(site, stolen=_stolen(site, self.keys)))
        yield Change(self.second + self.noticed, lambda before, site: _without_stolen(site, before, self, policy))


@dataclass(frozen=True)
class CAChange:
    """The site moves to another CA, and keeps its key."""

    second: int
    to: Successor = "backup"

    label = "CA change"

    def changes(self, policy: SitePolicy) -> Iterator[Change]:
        """The steps of this event."""
        yield Change(self.second, lambda _, site: site.moved_to_new_ca(self.to))


@dataclass(frozen=True)
class Mistake:
    """The operator makes a mistake: an unannounced key, a max-age in milliseconds, or no header."""

    second: int
    what: Wrong
    fixed_after: int

    @property
    def label(self) -> str:
        """The name in pictures."""
        return {"key": "wrong key", "max-age": "wrong max-age", "no-header": "no header"}[self.what]

    @property
    def key(self) -> str:
        """The key that is shown by mistake."""
        return f"wrong key of {self.second}"

    def changes(self, policy: SitePolicy) -> Iterator[Change]:
        """The steps of this event."""
        yield Change(self.second, lambda _, site: replace(site, mistakes=(*site.mistakes, self)))
        yield Change(
            self.second + self.fixed_after, lambda _, site: replace(site, mistakes=_without(site.mistakes, self))
        )


@dataclass(frozen=True)
class Unpin:
    """The site unpins: max-age=0 from this day on (RFC 7469 §2.3.1)."""

    second: int

    label = "unpinning"

    def changes(self, policy: SitePolicy) -> Iterator[Change]:
        """The steps of this event."""
        yield Change(self.second, lambda _, site: replace(site, unpinning=True))


@dataclass(frozen=True)
class Attack:
    """Somebody answers instead of the site, to a share of the clients.

    Attributes:
        second: when it begins.
        until: when it ends.
        share: the share of the clients whose network the attacker controls.
        shows: a certificate of an ``"other-ca"``, one that the ``"pinned-ca"`` was made to sign, the ``"stolen-key"``
            of a compromise, or the ``"server"`` itself, broken into.
        pins_for: the max-age of the attacker's own pins, in seconds; 0 if the attacker sends none.
    """

    second: int
    until: int
    share: float = 1.0
    shows: Shown = "other-ca"
    pins_for: int = 0

    @property
    def label(self) -> str:
        """The name in pictures."""
        names = {"pinned-ca": "attack by the CA", "stolen-key": "stolen key used", "server": "server broken into"}
        what = names.get(self.shows, "attack")
        return what if self.share == 1 else f"{what} on {100 * self.share:.3g} %"

    def chain(self, site: Site) -> tuple[str, ...]:
        """The keys of the chain that the attacker shows, for the current site."""
        match self.shows:
            case "other-ca":
                return "attacker's key", "other CA"
            case "pinned-ca":
                return "attacker's key", site.ca
            case "stolen-key":
                return site.stolen[0] if site.stolen else ("attacker's key", "other CA")
            case "server":
                return site.chain

    def pins(self, site: Site) -> tuple[str, ...]:
        """The keys that the attacker's header pins; none without a header."""
        return (self.chain(site)[0], "attacker's backup") if self.pins_for else ()


Event = Rotation | Loss | Compromise | CAChange | Mistake | Unpin | Attack


def _without(held: tuple[Item, ...], one: Item) -> tuple[Item, ...]:
    return tuple(each for each in held if each != one)


def _stolen(site: Site, keys: int) -> tuple[tuple[str, str], ...]:
    return (*((key, site.ca) for key in (site.key, *site.backups)[:keys]), *site.stolen)


def _without_stolen(site: Site, before: Site, theft: Compromise, policy: SitePolicy) -> Site:
    gone = {key for key, _ in _stolen(before, theft.keys)}
    kept = tuple(key for key in (site.key, *site.backups) if key not in gone) or (f"key after {theft.second}",)
    return replace(site, key=kept[0], backups=kept[1:]).refilled(policy.backups)


_KINDS = {
    "rotation": ("day", "to", "announced", "every"),
    "loss": ("day", "keys", "fixed_after"),
    "compromise": ("day", "keys", "noticed"),
    "ca-change": ("day", "to"),
    "attack": ("from", "until", "share", "shows", "pins_for"),
    "mistake": ("day", "what", "fixed_after"),
    "unpin": ("day",),
}


def read_events(number: int, values: object, horizon: int) -> list[Event]:
    """The events of one ``[[event]]`` of a study; several if it repeats.

    Raises:
        InvalidStudy: for invalid values.
    """
    every = sorted({key for keys in _KINDS.values() for key in keys} | {"kind"})
    kind = Table(f"event {number}", values, every).choice("kind", list(_KINDS))
    table = Table(f"event {number} ({kind})", values, ("kind", *_KINDS[kind]))
    second = table.day("from" if kind == "attack" else "day")
    if second >= horizon:
        raise InvalidStudy(
            f"{table.name}: day {second / DAY:g} is after the {horizon / DAY:g} days of the study: give it an earlier "
            "day, or the study more days"
        )
    match kind:
        case "rotation":
            step = table.span("every") if "every" in table.values else horizon
            if step < DAY:
                raise table.wrong("every", "a day or more")
            to, announced = _successor(table), table.span("announced", "0 days")
            return [Rotation(each, to, announced) for each in range(second, horizon, step)]
        case "loss":
            return [Loss(second, _keys(table, ALL), table.span("fixed_after", "0 days"))]
        case "compromise":
            return [Compromise(second, _keys(table, 1), table.span("noticed", "1 day"))]
        case "ca-change":
            return [CAChange(second, _successor(table))]
        case "mistake":
            what = next(each for each in get_args(Wrong) if each == table.choice("what", get_args(Wrong)))
            return [Mistake(second, what, table.span("fixed_after"))]
        case "unpin":
            return [Unpin(second)]
        case _:
            return [_attack(table, second)]


def _attack(table: Table, second: int) -> Attack:
    until = table.day("until")
    if until <= second:
        raise table.wrong("until", "a day after the one on which it begins")
    shows = next(each for each in get_args(Shown) if each == table.choice("shows", get_args(Shown), "other-ca"))
    return Attack(second, until, table.number("share", 1.0, most=1.0), shows, table.span("pins_for", "0 days"))


def _successor(table: Table) -> Successor:
    return "new" if table.choice("to", get_args(Successor), "backup") == "new" else "backup"


def _keys(table: Table, default: int) -> int:
    if isinstance(keys := table.values.get("keys"), str):
        if keys != "all":
            raise table.wrong("keys", 'a whole number, or "all"')
        return ALL
    return table.integer("keys", default, least=1, most=ALL)
