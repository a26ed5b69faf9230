"""Who acts in a scenario: sites, attackers and clients. Each deed is done, and stands in the timeline as an event."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Unpack
from urllib.parse import urlsplit

from dynpin.deploy.guard import Verdict, guard
from dynpin.deploy.lint import Circumstances, lint
from dynpin.deploy.lint.faults import duration
from dynpin.deploy.rotation import Deployed, History, Published
from dynpin.errors import InvalidHeader
from dynpin.header import ENFORCE_NAME, PublicKeyPins
from dynpin.hosts import KnownPinnedHost
from dynpin.lab.agents import Agent, Machine, Sent, Settings, Visit
from dynpin.lab.certificates import Authority, Certificate, KeyPair
from dynpin.lab.network import TLSServer
from dynpin.lab.timeline import Event, Outcome
from dynpin.middleware import Policy, PublicKeyPinsWSGIMiddleware
from dynpin.middleware.policy import PolicyTerms

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from dynpin.lab.stage import Stage

__all__ = ["Answerer", "Attacker", "Client", "Site"]


class Answerer:
    """Somebody who answers for a host: a TLS server on loopback, with a key, a certificate and a header of its own.

    Args:
        stage: where it acts.
        host: the name that it answers for.
        name: what it is called.
        certificate: what it shows at first; None to make a key, which `authority` certifies.
        authority: who certifies its keys.

    Attributes:
        keys: every key that it has made.
        certificate: what it shows now.
        server: the server; it counts what it reads.
        header: the value of the Public-Key-Pins header that it sends, or None.
    """

    def __init__(
        self, stage: Stage, host: str, name: str, authority: Authority, certificate: Certificate | None = None
    ) -> None:
        self.stage = stage
        self.host = host
        self.name = name
        self.authority = authority
        self.header: str | None = None
        self.keys: list[KeyPair] = []
        self.certificate = certificate or self.certifies(self.makes_key())
        self.server = stage.enter(TLSServer(self.certificate, body=f"This is {name}.\n".encode()))

    @property
    def key(self) -> KeyPair:
        """The key that is deployed."""
        return self.certificate.key

    def makes_key(self) -> KeyPair:
        """Make a key; it is called after its maker, such as ``bank.test key 2``."""
        made = sum(key.owner == self.name for key in self.stage.timeline.keys)
        key = KeyPair(f"{self.name} key {made + 1}", self.name)
        self.keys.append(key)
        self.stage.names(key)
        return key

    def certifies(self, key: KeyPair, by: Authority | None = None, *, expired: bool = False) -> Certificate:
        """Have a key certified for the host, by its own authority or another; nothing is deployed by that."""
        return (by or self.authority).issue(self.host, key, expired=expired)

    def shows(self, certificate: Certificate) -> None:
        """Show another certificate from the next connection on, without a word in the timeline."""
        self.certificate = certificate
        self.server.show(certificate)

    def sends(self, value: str | None, text: str = "") -> None:
        """Send this text as Public-Key-Pins, whatever it says, past the middleware; None: no such header."""
        self.header = value
        self.server.app = None
        self.server.headers = [] if value is None else [(ENFORCE_NAME, value)]
        told = "sends no pins any more" if value is None else f"sends {ENFORCE_NAME}: {value}"
        policy = self.policy_sent
        self.stage.tells(self.name, text or told, pinned=policy.pins if policy else ())

    @property
    def policy_sent(self) -> PublicKeyPins | None:
        """The header that it sends, parsed; None where it sends none that can be."""
        try:
            return None if self.header is None else PublicKeyPins.parse(self.header)
        except InvalidHeader:
            return None

    def faults(self, known: Circumstances | None = None, value: str | None = None) -> set[str]:
        """The names of the faults that ``dynpin lint`` finds in a header over this server's chain.

        Args:
            known: what is known beside the host and the chain.
            value: the header; by default the one that is sent.
        """
        chain = tuple(map(str, self.certificate.pins))
        known = replace(known or Circumstances(), scheme="https", chain_valid=True, host=self.host, chain_pins=chain)
        return {found.fault for found in lint(value or self.header, circumstances=known)}


class Site(Answerer):
    """The true site. Its header comes from dynpin's own :class:`~dynpin.middleware.Policy` and WSGI middleware.

    Attributes:
        backups: the keys of its Backup Pins.
        lost: the keys whose private half is gone.
        history: what it served until now, as ``dynpin rotate`` and ``dynpin guard`` read it.
    """

    def __init__(
        self,
        stage: Stage,
        host: str,
        name: str,
        authority: Authority,
        certificate: Certificate | None,
        *,
        backups: int,
        terms: PolicyTerms,
    ) -> None:
        super().__init__(stage, host, name, authority, certificate)
        self.history = History(host)
        self.lost: list[KeyPair] = []
        self.backups = [self.makes_key() for _ in range(backups)]
        self._terms = terms
        self._record_deployment()
        if "max_age" in terms:
            self.pins()

    def policy(self, **terms: Unpack[PolicyTerms]) -> Policy:
        """The policy of the deployed chain and the backups by these terms, those of before where nothing is said.

        Raises:
            PolicyError: where dynpin refuses to send such a header.
        """
        merged = self._terms.copy()
        merged.update(terms)
        return Policy(self.certificate.pem, [key.public_pem for key in self.backups], **merged)

    def pins(self, text: str = "", **terms: Unpack[PolicyTerms]) -> None:
        """Send a header made from the keys as they are now, and by these terms from now on.

        Raises:
            PolicyError: where dynpin refuses to send such a header.
        """
        policy = self.policy(**terms)
        self._terms.update(terms)
        self.server.app = PublicKeyPinsWSGIMiddleware(self._answer, policy)
        header = policy.header
        self.header = None if header is None else str(header)
        self._record(header)
        if header is not None:
            names = " and ".join(map(self.stage.name_of, header.pins))
            told = f"pins {names} for {duration(header.max_age or 0)}"
            self.stage.tells(self.name, text or told, shown=self.certificate.pins, pinned=header.pins)

    def sends(self, value: str | None, text: str = "") -> None:
        """As of every answerer; what can be read of it stands in the history."""
        super().sends(value, text)
        self._record(self.policy_sent)

    def deploys(self, what: KeyPair | Certificate, text: str = "") -> None:
        """Show a key, certified by the site's authority, or a certificate; the header stays as it is."""
        certificate = self.certifies(what) if isinstance(what, KeyPair) else what
        if certificate.key in self.lost:
            raise ValueError(f"{certificate.key.name} is lost: nobody can deploy it")
        self.shows(certificate)
        self._record_deployment()
        told = f"deploys {certificate.key.name}, certified by {certificate.issuer.name}"
        self.stage.tells(self.name, text or told, shown=certificate.pins)

    def rotates(self) -> None:
        """Deploy the first backup, make another in its stead, and pin both."""
        self.deploys(self.backups.pop(0))
        self.backups.append(self.makes_key())
        self.pins()

    def loses(self, *keys: KeyPair, text: str = "") -> None:
        """Lose the private half of keys: they are deployed never again."""
        self.lost += keys
        self.backups = [key for key in self.backups if key not in keys]
        names = " and ".join(key.name for key in keys)
        self.stage.tells(self.name, text or f"loses {names}")

    def guard(self, certificate: Certificate) -> Verdict:
        """What ``dynpin guard`` says of deploying a certificate now."""
        return guard(self.history, certificate.pins, self.stage.now)

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [self.server.body]

    def _record(self, header: PublicKeyPins | None) -> None:
        self.history = self.history.adding(Published(self.stage.now, header))

    def _record_deployment(self) -> None:
        self.history = self.history.adding(Deployed(self.stage.now, self.certificate.pins))


class Attacker(Answerer):
    """Somebody who answers in a site's stead, to whom the network leads."""

    _led: tuple[tuple[MutableMapping[str, int], int | None], ...] = ()

    def takes(self, host: str, only: Iterable[Client] = (), text: str = "") -> None:
        """Have the network lead a name here: everybody's, or that of these clients alone."""
        clients = tuple(only)
        networks = tuple(client.network.maps[0] for client in clients) or (self.stage.network,)
        self._led = tuple((network, network.get(host)) for network in networks)
        for network in networks:
            network[host] = self.server.port
        told = f"answers {host} with a certificate of {self.certificate.issuer.name}"
        if clients:
            told = f"{told}, in the network of {' and '.join(client.name for client in clients)}"
        self.stage.tells(self.name, text or told, target=host, shown=self.certificate.pins)

    def leaves(self, text: str = "") -> None:
        """Let the network lead where it led before."""
        for network, before in self._led:
            if before is None:
                network.pop(self.host, None)
            else:
                network[self.host] = before
        self._led = ()
        self.stage.tells(self.name, text or f"is gone; {self.host} leads to the true site again")


class Client:
    """A person with a user agent, which remembers what it has noted.

    Args:
        stage: where the client acts.
        name: what the person is called.
        agent: which user agent is installed.
        pins: False for one that knows nothing of pinning.
        trusts: the roots that are trusted; None for every root of the stage.
        device_of: whose files it keeps its pins in; None for files of its own.
        settings: what dynpin's agent is told.

    Attributes:
        network: the port at which a name is answered; the first map is this client's own.
        ahead: how far this client's clock is ahead of the true one.
        memory: the user agent.
        folder: where it keeps its files.
    """

    def __init__(
        self,
        stage: Stage,
        name: str,
        agent: Agent,
        *,
        pins: bool,
        trusts: Sequence[Authority] | None,
        device_of: Client | None,
        settings: Settings,
    ) -> None:
        self.stage = stage
        self.name = name
        self.network: ChainMap[str, int] = ChainMap({}, stage.network)
        self.ahead = timedelta()
        self._trusts = trusts
        self._distrusts: set[Authority] = set()
        self._public: list[bytes] = []
        self._private: list[bytes] = []
        self.folder: Path = stage.folder / name if device_of is None else device_of.folder
        self.folder.mkdir(exist_ok=device_of is not None)
        machine = Machine(
            folder=self.folder,
            public_roots=self._public,
            private_roots=self._private,
            clock=lambda: stage.now + self.ahead.total_seconds(),
            network=self.network,
            pins=pins,
            settings=settings,
        )
        self.memory = agent.install(machine)
        stage.on_exit(self.memory.close)

    def visits(self, where: Answerer | str, path: str = "/") -> Event:
        """Visit a host by https on a new connection; what came of it is found at the servers."""
        host = _host(where)
        self._install_roots()
        counted = {each: (each.server.connections, each.server.application_bytes) for each in self.stage.answerers}
        visit = self.memory.visit(host, secret=f"Bearer the-token-of-{self.name.lower()}", path=path)
        met: Answerer | None = None
        read = 0
        for each, (connections, before) in counted.items():
            each.server.wait_idle()
            if each.server.port == self.network.get(host) and each.server.connections > connections:
                met, read = each, each.server.application_bytes - before
        return self.stage.saw(self._event(host, visit, met, read))

    def knows(self, where: Answerer | str) -> KnownPinnedHost | None:
        """What this client has noted that applies to a host now."""
        return self.memory.known_host(_host(where))

    def comes_with(
        self, where: Answerer | str, *keys: KeyPair, lasting: timedelta | None = None, text: str = ""
    ) -> None:
        """Have pins that came with the agent, and not from a visit; without `lasting` for good."""
        host, seconds = _host(where), None if lasting is None else lasting.total_seconds()
        pins = tuple(key.pin for key in keys)
        self.memory.preload(host, pins, expires_at=None if seconds is None else self.stage.now + seconds)
        told = f"has a user agent that came with static pins of {host}: {' and '.join(key.name for key in keys)}"
        until = None if seconds is None else self.stage.at + seconds
        self.stage.saw(
            Event(
                self.stage.at,
                self.name,
                text or (told if seconds is None else f"{told}, for {duration(seconds)}"),
                host=host,
                pinned=pins,
                pinned_until=until,
                noting="noted",
                section="2.7",
            )
        )

    def forgets(self, where: Answerer | str, text: str = "") -> bool:
        """Do what the agent lets a user do to forget a host's pins; False where there were none."""
        host = _host(where)
        forgotten = self.memory.forget(host)
        told = text or f"has the user agent forget the pins of {host}"
        self.stage.saw(Event(self.stage.at, self.name, told, host=host, noting="removed" if forgotten else None))
        return forgotten

    def reports(self) -> list[Sent]:
        """Have the user agent send its violation reports; each attempt since the last time is an event."""
        attempts = self.memory.send_reports()
        for attempt in attempts:
            host = urlsplit(attempt.report_uri).hostname or ""
            port = self.network.get(host)
            met = next((each.name for each in self.stage.answerers if each.server.port == port), None)
            told = f"reports the violation to {host}"
            failed = f"tries to report the violation to {host}: {attempt.reason.rstrip('.')}"
            self.stage.tells(self.name, told if attempt.taken else failed, target=met)
        for each in self.stage.answerers:
            each.server.wait_idle()
        return attempts

    def distrusts(self, authority: Authority, text: str = "") -> None:
        """Trust an authority no more, as after an update of the trust store."""
        self._distrusts.add(authority)
        self.stage.tells(self.name, text or f"gets an update: {authority.name} is trusted no more")

    def _install_roots(self) -> None:
        roots = self.stage.roots if self._trusts is None else self._trusts
        trusted = [root for root in roots if root not in self._distrusts]
        self._public[:] = [root.der for root in trusted if root in self.stage.public]
        self._private[:] = [root.der for root in trusted if root not in self.stage.public]

    def _event(self, host: str, visit: Visit, met: Answerer | None, read: int) -> Event:
        outcome = _outcome(visit, met, read)
        noting = visit.noting
        held = noting.known_host if noting and noting.known_host else visit.known_host
        until = held.expires_at if held else None
        told = {
            "served": f"visits {host} and is served",
            "fooled": f"visits {host} and is fooled: {met.name if met else ''} reads {read} bytes",
            "protected": f"refuses the chain that is shown for {host}; nothing is sent",
            "locked-out": f"refuses the true {host}: locked out",
            "failed": f"cannot connect to {host}, for another reason than pins",
        }[outcome]
        return Event(
            at=self.stage.at,
            actor=self.name,
            text=f"{told}; pins {noting.outcome}" if noting and noting.outcome != "ignored" else told,
            target=met.name if met else None,
            outcome=outcome,
            host=host,
            shown=visit.chain or (met.certificate.pins if met else ()),
            pinned=held.pins if held else (),
            pinned_until=None if until is None else until - self.stage.now + self.stage.at,
            noting=noting.outcome if noting else None,
            reason=visit.refusal or visit.failure or (noting.reason if noting else ""),
            section=visit.section,
            bytes_read=read,
        )


def _host(where: Answerer | str) -> str:
    return where if isinstance(where, str) else where.host


def _outcome(visit: Visit, met: Answerer | None, read: int) -> Outcome:
    """What a visit came to: by who was met and what reached him, and only then by what the agent says."""
    if isinstance(met, Attacker):
        if read:
            return "fooled"
        return "protected" if visit.refusal else "failed"
    if visit.refusal:
        return "locked-out"
    return "served" if visit.status is not None and met is not None else "failed"
