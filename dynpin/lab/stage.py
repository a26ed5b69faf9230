"""The stage: the methods in which scenarios are written.

A scenario is a function of a :class:`Stage`, in a file of its own in ``dynpin/lab/scenarios``; ``hotspot.py`` is the
shortest. Everything really happens: each site and attacker is a TLS server on loopback, each visit is a TLS connection
with an HTTP request of the user agent under test, and the servers' counts decide the outcome. Only time is simulated.

**Setting.** ::

    honest = stage.authority("Honest CA")                 # a root that every client trusts; .intermediate("…"),
                                                          # .cross_signed(by=other); public=False: installed by the user
    bank = stage.site("bank.test", honest, backups=1, max_age=days(30))      # and every other keyword of Policy;
                                                          # without max_age it sends no header until .pins(…)
    shop = stage.site("shop.bank.test", honest, shows=honest.issue("shop.bank.test", bank.key))       # the same key
    alice = stage.client("Alice")                         # the agent under test; pins=False: one without pinning;
                                                          # trusts=[…]: only these roots; device_of=bob: on his device;
                                                          # and every option of Settings that stage.has
    owner = stage.signed_list("recovery.test", threshold=2, of=3)            # of dynpin recovery: owner.recovery is an
                                                          # option of Policy, and owner.signs(listed([bank]), stage.now)

**Actions**, each an event of the timeline; ``text=`` describes it in other words. ::

    event = alice.visits(bank)                            # an Event with outcome, bytes_read, noting, reason …
    stage.later(days(1))                                  # moves the clock of everybody
    key = bank.makes_key(); bank.deploys(key)             # shows it; the header stays as it is until
    bank.pins(max_age=days(1))                            # … this: dynpin's own Policy for the current keys
    bank.deploys(bank.certifies(key, by=other, expired=True))
    bank.rotates(); bank.loses(bank.key, *bank.backups)
    bank.sends('pin-sha256="…"; max-age=1000')            # any header, without the middleware; or None
    mallory = stage.attacker("Mallory", takes=bank, certificate_of=careless, only=[alice], sends=header_or_None)
    mallory.leaves()                                      # the network leads to the true site again
    bank.falls_to("Mallory"); bank.is_freed()             # she controls the true server, and reads its traffic
    alice.comes_with(bank, *bank.keys, lasting=days(70))  # static pins, built into the agent or app (RFC 7469 §2.7)
    alice.reports()                                       # sends the violation reports that wait
    alice.knows(bank); alice.forgets(bank); alice.distrusts(careless); alice.ahead = days(61)
    stage.leads("shop.test", node_b)                      # the network leads a name to this server (a node, say)
    stage.tells("bank.test", "…")                         # an event without an effect

``bank.history`` is the history of the site's actions, for :mod:`dynpin.deploy.rotation` (plan, emergency, …).

**Assertions**, each a remark in the timeline. A scenario fails if one of them is false. ::

    stage.expect(event, "protected", chromium="fooled")   # the outcome, and other outcomes by the agent's name
    stage.check("the guard refuses the new key", not bank.guard(bank.certifies(key)).ok)
    stage.check("lint knows it", "max-age-too-long" in bank.faults())        # of its header, or of another
    stage.refuses("dynpin pins for 60 days at most", lambda: bank.policy(max_age=days(99)), PolicyError)
    stage.chapter("First visit", "Pins are noted on first use (§2.5).")      # the following events belong to it
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

# The name of the table row with the outcome of a lock-out with recovery.
WITH_RECOVERY = "with recovery"


class Otherwise(TypedDict, total=False):
    """The outcome with an agent that differs from the others."""

    dynpin: Outcome
    chromium: Outcome
    firefox: Outcome
    wget2: Outcome


def days(number: float) -> timedelta:
    """A number of days."""
    return timedelta(days=number)


def hours(number: float) -> timedelta:
    """A number of hours."""
    return timedelta(hours=number)


def minutes(number: float) -> timedelta:
    """A number of minutes."""
    return timedelta(minutes=number)


@contextlib.contextmanager
def set_stage(scenario: str, agent: Agent, *, recovery: bool = False, heals: bool = True) -> Generator[Stage]:
    """An empty stage for one scenario and agent. At the end its servers stop, and its files are removed.

    Args:
        scenario: the scenario's name.
        agent: the user agent under test.
        recovery: whether every header names a root, and the first lock-out is the story's end
            (:mod:`dynpin.lab.with_recovery`).
        heals: whether that lock-out should end within a minute, for an agent with recovery.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dynpin-lab-")))
        stage = Stage(scenario, agent, folder, stack)
        if recovery:
            stage.recovery = WithRecovery(stage.world)
            stage.heals = heals and stage.has("recovery")
        yield stage


class Stage:
    """The actors, their network, the clock, and the record; this module's docstring lists the methods.

    Attributes:
        agent: the user agent under test.
        world: the clock, the network and the record for all actors.
        tells: :meth:`World.tells <dynpin.lab.world.World.tells>`.
        names: :meth:`World.names <dynpin.lab.world.World.names>`.
        appears: :meth:`World.appears <dynpin.lab.world.World.appears>`.
        recovery: ends the story at the first lock-out; None for the normal ending.
        heals: whether that lock-out should end.
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
        """The true site of a name, or a further server of it; the network leads to the first one.

        Args:
            host: the name that it answers for.
            authority: the authority that certifies its keys.
            name: its name in the story, if that is not the host.
            shows: a certificate for an existing key, instead of a new one.
            backups: the number of its Backup Pins.
            about: a few words about it.
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
        """An attacker who answers instead of the site; the network leads clients to it.

        Args:
            name: the attacker's name.
            takes: the site whose name the attacker answers for.
            certificate_of: the authority that certifies the attacker's key for that name; by default the site's.
            shows: a certificate whose key was stolen, instead of that.
            only: the clients in the attacker's network; by default everybody.
            sends: the Public-Key-Pins header that the attacker sends.
            about: a few words about the attacker.
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
        """A person with the user agent under test, with an empty memory or on another person's device.

        Raises:
            ValueError: if the user agent does not have an option in `settings`.
        """
        if unknown := set(settings) - self.agent.options:
            raise ValueError(f"{self.agent.title} has no {', '.join(sorted(unknown))}: ask stage.has first")
        self.appears(name, "client", about or ("" if pins else "without pinning"))
        client = Client(self.world, name, self.agent, pins=pins, trusts=trusts, device_of=device_of, settings=settings)
        self._clients[name] = client
        return client

    def signed_list(self, host: str, *, threshold: int = 1, of: int = 1) -> SignedList:
        """Like :meth:`World.publishes <dynpin.lab.world.World.publishes>`."""
        return self.world.publishes(host, threshold=threshold, of=of)

    def has(self, option: str) -> bool:
        """Whether the agent under test has an option for its user, such as ``"private"``."""
        return option in self.agent.options

    # -- events -------------------------------------------------------------------------------------------------

    def later(self, time: timedelta) -> None:
        """Let time pass."""
        self.world.now += time.total_seconds()

    def leads(self, host: str, to: Answerer | str) -> None:
        """Lead everybody's connections for a name to this server, or to the server with this name."""
        name = to if isinstance(to, str) else to.name
        self.world.network[host] = next(each for each in self.world.listeners if each.name == name).server.port

    # -- assertions ---------------------------------------------------------------------------------------------

    def expect(
        self,
        visit: Event,
        outcome: Outcome,
        *,
        decisive: bool = False,
        option: str = "",
        **otherwise: Unpack[Otherwise],
    ) -> None:
        """Assert the outcome of a visit: `outcome`, except for the agents that are named.

        Args:
            visit: the result of :meth:`Client.visits`.
            outcome: the expected outcome.
            decisive: whether this visit decides the story, so that the table of all scenarios shows its outcome. If no
                visit is marked, the last expected one does.
            option: the option that the client has chosen, if the table shows this visit in a row of its own.
            otherwise: the outcome with other agents.
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
        """Assert something else, in words that are true if it holds."""
        remark = Remark(text, holds)
        self.timeline.remarks.append(remark)
        if self.timeline.chapters:
            self.timeline.chapters[-1].remarks.append(remark)

    def chapter(self, title: str, why: str) -> None:
        """Begin a chapter: the following assertions belong to it."""
        self.timeline.chapters.append(Chapter(title, why))

    def refuses(self, text: str, attempt: Callable[[], object], error: type[Exception]) -> str:
        """Assert that an attempt raises this error, and return its message (empty if it did not)."""
        try:
            attempt()
        except error as refusal:
            self.check(text, True)
            return str(refusal)
        self.check(text, False)
        return ""
