"""The clients in a scenario: a person with a user agent, and the outcome of each visit."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from dynpin.durations import duration
from dynpin.hosts import KnownPinnedHost
from dynpin.lab.agents import Agent, Machine, Sent, Settings, Visit
from dynpin.lab.certificates import Authority, KeyPair
from dynpin.lab.servers import Answerer
from dynpin.lab.timeline import Event, Held, Outcome
from dynpin.lab.world import Listener, World

__all__ = ["Client"]


class Client:
    """A person with a user agent, which remembers what it has noted.

    Args:
        world: where the client acts.
        name: the name of the person.
        agent: the installed user agent.
        pins: False for an agent without pinning.
        trusts: the trusted roots; None for every root of the world.
        device_of: the client whose device and pins it shares; None for a device of its own.
        settings: the options of dynpin's agent.

    Attributes:
        network: the port that answers each name; the first map is this client's own.
        ahead: how far this client's clock is ahead of the true one.
        memory: the user agent.
        folder: where it keeps its files.
    """

    def __init__(
        self,
        world: World,
        name: str,
        agent: Agent,
        *,
        pins: bool,
        trusts: Sequence[Authority] | None,
        device_of: Client | None,
        settings: Settings,
    ) -> None:
        self.world = world
        self.name = name
        self.network: ChainMap[str, int] = ChainMap({}, world.network)
        self.ahead = timedelta()
        self._trusts = trusts
        self._distrusts: set[Authority] = set()
        self._public: list[bytes] = []
        self._private: list[bytes] = []
        self.folder: Path = world.folder / name if device_of is None else device_of.folder
        self.folder.mkdir(exist_ok=device_of is not None)
        machine = Machine(
            folder=self.folder,
            public_roots=self._public,
            private_roots=self._private,
            clock=self._now,
            network=self.network,
            pins=pins,
            settings=settings,
        )
        self.memory = agent.install(machine)
        world.holders.append(self)
        world.on_exit(self.memory.close)

    def visits(self, where: Answerer | str, path: str = "/") -> Event:
        """Visit a host by https on a new connection. The outcome is read at the servers."""
        host = _host(where)
        self.world.hosts.add(host)
        self._install_roots()
        counted = {each: (each.server.connections, each.server.application_bytes) for each in self.world.listeners}
        visit = self.memory.visit(host, secret=f"Bearer the-token-of-{self.name.lower()}", path=path)
        met: Listener | None = None
        read = 0
        for each, (connections, before) in counted.items():
            each.server.wait_idle()
            if each.server.port == self.network.get(host) and each.server.connections > connections:
                met, read = each, each.server.application_bytes - before
        event = self.world.saw(self._event(host, visit, met, read))
        self._tell(self.memory.report_at_once())
        return event

    def holds(self) -> tuple[Held, ...]:
        """The entries in the user agent's store now, for the hosts of the story."""
        return tuple(
            Held(
                host=entry.host,
                pins=entry.pins,
                include_subdomains=entry.include_subdomains,
                # By the story's time: this client's clock may be ahead of it.
                until=None if entry.expires_at is None else entry.expires_at - self._now() + self.world.at,
                static=entry.source == "static",
            )
            for entry in self.memory.known_hosts()
            if entry.host in self.world.hosts
        )

    def knows(self, where: Answerer | str) -> KnownPinnedHost | None:
        """The entry in this client's memory that applies to a host now."""
        return self.memory.known_host(_host(where))

    def comes_with(
        self, where: Answerer | str, *keys: KeyPair, lasting: timedelta | None = None, text: str = ""
    ) -> None:
        """Add pins that came with the agent, and not from a visit. Without `lasting` they stay for ever."""
        host, seconds = _host(where), None if lasting is None else lasting.total_seconds()
        self.world.hosts.add(host)
        pins = tuple(key.pin for key in keys)
        self.memory.preload(host, pins, expires_at=None if seconds is None else self.world.now + seconds)
        told = f"has a user agent that came with static pins of {host}: {' and '.join(key.name for key in keys)}"
        self.world.saw(
            Event(
                self.world.at,
                self.name,
                text or (told if seconds is None else f"{told}, for {duration(seconds)}"),
                host=host,
                pinned=pins,
                noting="noted",
                section="2.7",
            )
        )

    def forgets(self, where: Answerer | str, text: str = "") -> bool:
        """Remove a host's pins by the means that the agent gives a user; False if there were none."""
        host = _host(where)
        forgotten = self.memory.forget(host)
        told = text or f"has the user agent forget the pins of {host}"
        self.world.saw(Event(self.world.at, self.name, told, host=host, noting="removed" if forgotten else None))
        return forgotten

    def restarts(self, text: str = "starts the user agent again", *, crashed: bool = False) -> None:
        """End the user agent, and start it again."""
        self.memory.restart(crashed=crashed)
        self.world.tells(self.name, text)

    def reports(self) -> list[Sent]:
        """Send the violation reports that wait."""
        attempts = self.memory.send_reports()
        self._tell(attempts)
        return attempts

    def _tell(self, attempts: Sequence[Sent]) -> None:
        """Record each attempt to report as an event."""
        for attempt in attempts:
            host = urlsplit(attempt.report_uri).hostname or ""
            port = self.network.get(host)
            met = next((each.name for each in self.world.listeners if each.server.port == port), None)
            told = f"reports the violation to {host}"
            failed = f"tries to report the violation to {host}: {attempt.reason.rstrip('.')}"
            self.world.saw(
                Event(
                    self.world.at,
                    self.name,
                    told if attempt.taken else failed,
                    target=met,
                    report="taken" if attempt.taken else "failed",
                )
            )
        for each in self.world.listeners:
            each.server.wait_idle()

    def distrusts(self, authority: Authority, text: str = "") -> None:
        """Trust an authority no longer, as after an update of the trust store."""
        self._distrusts.add(authority)
        self.world.tells(self.name, text or f"gets an update: {authority.name} is trusted no more")

    def _now(self) -> float:
        return self.world.now + self.ahead.total_seconds()

    def _install_roots(self) -> None:
        roots = self.world.roots if self._trusts is None else self._trusts
        trusted = [root for root in roots if root not in self._distrusts]
        self._public[:] = [root.der for root in trusted if root in self.world.public]
        self._private[:] = [root.der for root in trusted if root not in self.world.public]

    def _event(self, host: str, visit: Visit, met: Listener | None, read: int) -> Event:
        outcome = _outcome(visit, met, read)
        noting = visit.noting
        held = noting.known_host if noting and noting.known_host else visit.known_host
        told = {
            "served": f"visits {host} and is served",
            "fooled": f"visits {host} and is fooled: {met.reader if met else None} reads {read} bytes",
            "protected": f"refuses the chain that is shown for {host}; nothing is sent",
            "locked-out": f"refuses the true {host}: locked out",
            "failed": f"cannot connect to {host}, for a reason other than pins",
        }[outcome]
        return Event(
            at=self.world.at,
            actor=self.name,
            text=f"{told}; pins {noting.outcome}" if noting and noting.outcome != "ignored" else told,
            target=met.name if met else None,
            outcome=outcome,
            host=host,
            shown=visit.chain or (met.certificate.served_pins if met else ()),
            pinned=held.pins if held else (),
            header=met.header_line if met and visit.status is not None else None,
            noting=noting.outcome if noting else None,
            reason=visit.refusal or visit.failure or (noting.reason if noting else ""),
            section=visit.section,
            bytes_read=read,
        )


def _host(where: Answerer | str) -> str:
    return where if isinstance(where, str) else where.host


def _outcome(visit: Visit, met: Listener | None, read: int) -> Outcome:
    """The outcome of a visit: first from the server that was reached and what it received, then from the agent."""
    if met is not None and met.reader is not None:
        if read:
            return "fooled"
        return "protected" if visit.refusal else "failed"
    if visit.refusal:
        return "locked-out"
    return "served" if visit.status is not None and met is not None else "failed"
