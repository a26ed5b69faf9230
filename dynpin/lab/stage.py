"""The stage on which a scenario is written, in the words of its story.

A scenario is a function of a :class:`Stage`, in a file of its own below ``dynpin/lab/scenarios``; ``hotspot.py`` is the
shortest. Everything happens: each site and attacker is a TLS server on loopback, each visit a TLS connection and an
HTTP request of the user agent under test, and the outcome is what the servers counted. Only time is the stage's own.

**Setting.** ::

    honest = stage.authority("Honest CA")                 # a root that every client trusts; .intermediate("…"),
                                                          # .cross_signed(by=other); public=False: installed by the user
    bank = stage.site("bank.test", honest, backups=1, max_age=days(30))      # and every other keyword of Policy;
                                                          # without max_age it sends no header until .pins(…)
    shop = stage.site("shop.bank.test", honest, shows=honest.issue("shop.bank.test", bank.key))       # the same key
    alice = stage.client("Alice")                         # the agent under test; pins=False: one without pinning;
                                                          # trusts=[…]: these roots alone; device_of=bob: with his
                                                          # files; and every word of Settings that stage.has
    owner = stage.signed_list("recovery.test", threshold=2, of=3)            # of dynpin recovery: owner.recovery is a
                                                          # word of Policy, and owner.signs(listed([bank]), stage.now)

**Deeds**, each an event of the timeline; ``text=`` tells it in other words. ::

    event = alice.visits(bank)                            # an Event with outcome, bytes_read, noting, reason …
    stage.later(days(1))                                  # the clock of everybody
    key = bank.makes_key(); bank.deploys(key)             # shows it; the header stays as it is until
    bank.pins(max_age=days(1))                            # … this: dynpin's own Policy of the keys as they are now
    bank.deploys(bank.certifies(key, by=other, expired=True))
    bank.rotates(); bank.loses(bank.key, *bank.backups)
    bank.sends('pin-sha256="…"; max-age=1000')            # a header past the middleware, as the story has it; or None
    mallory = stage.attacker("Mallory", takes=bank, certificate_of=careless, only=[alice], sends=header_or_None)
    mallory.leaves()                                      # the network leads to the true site again
    bank.falls_to("Mallory"); bank.is_freed()             # she holds the true server, and reads what it is sent
    alice.comes_with(bank, *bank.keys, lasting=days(70))  # static pins, built into the agent or app (RFC 7469 §2.7)
    alice.reports()                                       # sends the violation reports that wait
    alice.knows(bank); alice.forgets(bank); alice.distrusts(careless); alice.ahead = days(61)
    stage.leads("shop.test", node_b)                      # where the network leads a name (a node, another server)
    stage.tells("bank.test", "…")                         # a deed that needs no hand

``bank.history`` is the history of what the site did, for :mod:`dynpin.deploy.rotation` (plan, emergency, …).

**Assertions**, each a remark of the timeline; a scenario whose remarks do not all hold has failed. ::

    stage.expect(event, "protected", chromium="fooled")   # the outcome, and where an agent differs, by its name
    stage.check("the guard refuses the new key", not bank.guard(bank.certifies(key)).ok)
    stage.check("lint knows it", "max-age-too-long" in bank.faults())        # of its header, or of another
    stage.refuses("dynpin pins for 60 days at most", lambda: bank.policy(max_age=days(99)), PolicyError)
    stage.chapter("First visit", "Pins are noted on first use (§2.5).")      # what follows is told under it
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypedDict, Unpack

from dynpin.lab.agents import Agent, Settings
from dynpin.lab.certificates import Authority, Certificate
from dynpin.lab.clients import Client
from dynpin.lab.servers import Answerer, Attacker, Site
from dynpin.lab.signed_lists import SignedList
from dynpin.lab.timeline import Chapter, Event, Outcome, Remark, Timeline, day
from dynpin.lab.with_recovery import EndedWithRecoveryError, WithRecovery
from dynpin.lab.world import World
from dynpin.middleware.policy import KeylessPolicyOptions

__all__ = ["WITH_RECOVERY", "Otherwise", "Stage", "days", "hours", "minutes", "set_stage"]

# The row of the table that tells what a lock-out comes to with recovery.
WITH_RECOVERY = "with recovery"


class Otherwise(TypedDict, total=False):
    """What an agent comes to where it differs from the rest."""

    dynpin: Outcome
    chromium: Outcome
    firefox: Outcome
    wget2: Outcome


def days(number: float) -> timedelta:
    """So many days."""
    return timedelta(days=number)


def hours(number: float) -> timedelta:
    """So many hours."""
    return timedelta(hours=number)


def minutes(number: float) -> timedelta:
    """So many minutes."""
    return timedelta(minutes=number)


@contextlib.contextmanager
def set_stage(scenario: str, agent: Agent, *, recovery: bool = False, heals: bool = True) -> Generator[Stage]:
    """An empty stage for one playing; its servers end with it, and its files are gone.

    Args:
        scenario: the scenario's name.
        agent: the user agent under test.
        recovery: whether every header names a root, and the first lock-out is the story's end
            (:mod:`dynpin.lab.with_recovery`).
        heals: whether that lock-out is expected to end within a minute, with an agent that has recovery.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dynpin-lab-")))
        stage = Stage(scenario, agent, folder, stack)
        if recovery:
            stage.recovery = WithRecovery(stage.world)
            stage.heals = heals and stage.has("recovery")
        yield stage


class Stage:
    """Who plays, the network between them, the clock, and the record; the words are in this module's docstring.

    Attributes:
        agent: the user agent under test.
        world: the clock, the network and the record, in which everybody acts.
        tells: :meth:`World.tells <dynpin.lab.world.World.tells>`.
        names: :meth:`World.names <dynpin.lab.world.World.names>`.
        appears: :meth:`World.appears <dynpin.lab.world.World.appears>`.
        recovery: what makes the first lock-out the end of the story; None where the story is told as it is.
        heals: whether that lock-out is expected to end.
    """

    def __init__(self, scenario: str, agent: Agent, folder: Path, stack: contextlib.ExitStack) -> None:
        self.agent = agent
        self.world = World(scenario, agent.name, folder, stack)
        self.tells, self.names, self.appears = self.world.tells, self.world.names, self.world.appears
        self.recovery: WithRecovery | None = None
        self.heals = False
        self._clients: dict[str, Client] = {}
        self._decided = False

    @property
    def now(self) -> float:
        """The time, in seconds since the epoch."""
        return self.world.now

    @property
    def timeline(self) -> Timeline:
        """The record."""
        return self.world.timeline

    # -- the setting --------------------------------------------------------------------------------------------

    def authority(self, name: str, *, public: bool = True, about: str = "") -> Authority:
        """A root that clients trust: one that browsers ship, or one that users have installed."""
        authority = Authority(name)
        self.world.roots.append(authority)
        if public:
            self.world.public.add(authority)
        self.appears(name, "authority", about)
        self.names(authority.key)
        return authority

    def site(
        self,
        host: str,
        authority: Authority,
        *,
        name: str = "",
        shows: Certificate | None = None,
        backups: int = 0,
        about: str = "",
        **terms: Unpack[KeylessPolicyOptions],
    ) -> Site:
        """The true site of a name, or a further server of it; the network leads to the first.

        Args:
            host: the name that it answers for.
            authority: who certifies its keys.
            name: what it is called, where that is not the host.
            shows: a certificate of a key that there is already, in place of a new one.
            backups: how many Backup Pins it has.
            about: what is to be known of it.
            terms: of its Policy; without `max_age` it sends no header until :meth:`Site.pins`.
        """
        name = name or host
        self.appears(name, "site", about)
        self.names(*(issuer.key for issuer in authority.lineage))
        site = Site(self.world, host, name, authority, shows, backups=backups, terms=terms)
        self.world.listeners.append(site)
        self.world.network.setdefault(host, site.server.port)
        return site

    def attacker(
        self,
        name: str,
        *,
        takes: Site,
        certificate_of: Authority | None = None,
        shows: Certificate | None = None,
        only: Iterable[Client] = (),
        sends: str | None = None,
        about: str = "",
        text: str = "",
    ) -> Attacker:
        """Somebody to whom the network leads in the site's stead.

        Args:
            name: what he is called.
            takes: whose name he answers.
            certificate_of: the authority that certifies a key of his own for that name; the site's where none is given.
            shows: a certificate whose key he has stolen, in place of that.
            only: the clients in whose network he is; everybody where none is named.
            sends: the Public-Key-Pins header that he sends.
            about: what is to be known of him.
            text: the event in other words.
        """
        self.appears(name, "attacker", about)
        attacker = Attacker(self.world, takes.host, name, certificate_of or takes.authority, shows)
        self.world.listeners.append(attacker)
        attacker.takes(takes.host, only, text)
        if sends is not None:
            attacker.sends(sends)
        return attacker

    def client(
        self,
        name: str,
        *,
        pins: bool = True,
        trusts: Sequence[Authority] | None = None,
        device_of: Client | None = None,
        about: str = "",
        **settings: Unpack[Settings],
    ) -> Client:
        """A person with the user agent under test, new and without memory, or with that of another's device.

        Raises:
            ValueError: where that user agent has not what `settings` opt in to.
        """
        if unknown := set(settings) - self.agent.options:
            raise ValueError(f"{self.agent.title} has no {', '.join(sorted(unknown))}: ask stage.has first")
        self.appears(name, "client", about or ("" if pins else "without pinning"))
        client = Client(self.world, name, self.agent, pins=pins, trusts=trusts, device_of=device_of, settings=settings)
        self._clients[name] = client
        return client

    def signed_list(self, host: str, *, threshold: int = 1, of: int = 1) -> SignedList:
        """As :meth:`World.publishes <dynpin.lab.world.World.publishes>`."""
        return self.world.publishes(host, threshold=threshold, of=of)

    def has(self, option: str) -> bool:
        """Whether the agent under test lets its user opt in to this, such as ``"private"``."""
        return option in self.agent.options

    # -- what happens -------------------------------------------------------------------------------------------

    def later(self, time: timedelta) -> None:
        """Let time pass."""
        self.world.now += time.total_seconds()

    def leads(self, host: str, to: Answerer | str) -> None:
        """Have everybody's network lead a name to this server, or to that of this name."""
        name = to if isinstance(to, str) else to.name
        self.world.network[host] = next(each for each in self.world.listeners if each.name == name).server.port

    # -- what is asserted ---------------------------------------------------------------------------------------

    def expect(
        self,
        visit: Event,
        outcome: Outcome,
        *,
        decisive: bool = False,
        option: str = "",
        **otherwise: Unpack[Otherwise],
    ) -> None:
        """Assert what a visit came to: `outcome`, but for the agents that are named.

        Args:
            visit: what :meth:`Client.visits` gave.
            outcome: what it must have come to.
            decisive: whether the story turns on this visit, so that its outcome stands in the table of all; the last
                one that was expected does, where none is marked.
            option: what the client has opted in to, where this visit stands for it in a row of its own.
            otherwise: what it comes to with another agent.
        """
        expected = otherwise.get(self.agent.name, outcome)
        found = "" if visit.outcome == expected else f", but was {visit.outcome}: {visit.reason}"
        self.check(f"{visit.actor} at {visit.host}, {day(visit.at)}: {expected}{found}", visit.outcome == expected)
        if option:
            self.timeline.options[option] = visit
        elif decisive or not self._decided:
            self.timeline.decisive = visit
            self._decided = decisive
        if self.recovery is not None and expected == visit.outcome == "locked-out":
            self._end(self.recovery, visit)

    def _end(self, recovery: WithRecovery, refused: Event) -> None:
        visit = recovery.ends(self._clients[refused.actor], refused.host or "")
        expected = "served" if self.heals else "locked-out"
        self.check(
            f"{visit.actor} at {visit.host}, a minute after the list was signed: {expected}", visit.outcome == expected
        )
        self.timeline.decisive = self.timeline.options[WITH_RECOVERY] = visit
        raise EndedWithRecoveryError

    def check(self, text: str, holds: bool) -> None:
        """Assert something else, in words that are true where it holds."""
        remark = Remark(text, holds)
        self.timeline.remarks.append(remark)
        if self.timeline.chapters:
            self.timeline.chapters[-1].remarks.append(remark)

    def chapter(self, title: str, why: str) -> None:
        """Begin a chapter: what is asserted from here on is told under it."""
        self.timeline.chapters.append(Chapter(title, why))

    def refuses(self, text: str, attempt: Callable[[], object], error: type[Exception]) -> str:
        """Assert that an attempt is refused by this error, and give its message (empty where it was not)."""
        try:
            attempt()
        except error as refusal:
            self.check(text, True)
            return str(refusal)
        self.check(text, False)
        return ""
