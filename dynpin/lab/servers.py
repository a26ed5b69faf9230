"""The servers of a scenario: sites and attackers. Each action really happens, and is an event in the timeline."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from dynpin.counts import plural
from dynpin.deploy.guard import Verdict, guard
from dynpin.deploy.lint import Circumstances, lint
from dynpin.deploy.rotation import Deployed, History, Published
from dynpin.durations import duration
from dynpin.errors import InvalidHeader
from dynpin.header import ENFORCE_NAME, PublicKeyPins
from dynpin.lab.certificates import Authority, Certificate, KeyPair
from dynpin.lab.network import TLSServer
from dynpin.lab.timeline import Event
from dynpin.lab.world import Networked, World
from dynpin.middleware import Policy, PublicKeyPinsWSGIMiddleware
from dynpin.middleware.policy import KeylessPolicyOptions
from dynpin.pins import Pin

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


__all__ = ["Answerer", "Attacker", "Site"]


class Answerer:
    """An actor who answers for a host: a TLS server on loopback, with its own key, certificate and header.

    Args:
        world: where it acts.
        host: the name that it answers for.
        name: its name in the story.
        authority: the authority that certifies its keys.
        certificate: its first certificate; None to make a key and certify it.

    Attributes:
        keys: all keys that it has made.
        certificate: the certificate that it shows now.
        server: the server; it counts what it reads.
        header: the value of the Public-Key-Pins header that it sends, or None.
        reader: the name of the attacker who reads its traffic; None if only its owner does.
    """

    def __init__(
        self, world: World, host: str, name: str, authority: Authority, certificate: Certificate | None = None
    ) -> None:
        self.world = world
        self.host = host
        self.name = name
        self.authority = authority
        self.header: str | None = None
        self._header_name = ENFORCE_NAME
        self.reader: str | None = None
        self.keys: list[KeyPair] = []
        self.certificate = certificate or self.certifies(self.makes_key())
        self.server = world.enter(TLSServer(self.certificate, body=f"This is {name}.\n".encode()))

    @property
    def key(self) -> KeyPair:
        """The key that is deployed."""
        return self.certificate.key

    def makes_key(self) -> KeyPair:
        """Make a key; its name contains its maker's, such as ``bank.test key 2``."""
        made = sum(key.owner == self.name for key in self.world.timeline.keys)
        key = KeyPair(f"{self.name} key {made + 1}", self.name)
        self.keys.append(key)
        self.world.names(key)
        return key

    def certifies(self, key: KeyPair, by: Authority | None = None, *, expired: bool = False) -> Certificate:
        """Certify a key for the host, by its own authority or another one. This does not deploy it."""
        return (by or self.authority).issue(self.host, key, expired=expired)

    def _show(self, certificate: Certificate) -> None:
        """Show another certificate from the next connection on."""
        self.certificate = certificate
        self.server.show(certificate)

    def sends(self, value: str | None, text: str = "") -> None:
        """Send any text as Public-Key-Pins, without the middleware; None for no such header."""
        told = "sends no pins any more" if value is None else f"sends {ENFORCE_NAME}: {value}"
        root = self.world.owners_root if self.reader is None else self.world.thiefs_root
        if value is not None and root is not None:
            value += f'; recovery-root="{root.root_text}"; recovery-uri="{root.uri}"'
        self.header = value
        self._header_name = ENFORCE_NAME
        self.server.app = None
        self.server.headers = [] if value is None else [(ENFORCE_NAME, value)]
        self._announce(text or told, self.policy_sent)

    def _announce(self, text: str, header: PublicKeyPins | None, shown: tuple[Pin, ...] = ()) -> None:
        """Record the content of the new header."""
        event = Event(self.world.at, self.name, text, shown=shown, header=self.header_line)
        if header is not None and not header.report_only:
            event = replace(
                event,
                pinned=header.pins,
                max_age=header.max_age,
                include_subdomains=header.include_subdomains,
            )
        self.world.saw(event)

    @property
    def header_line(self) -> str:
        """The pinning header as a line of a response; empty if there is none."""
        if self.header is None:
            return ""
        return f"{self._header_name}: {self.header}"

    @property
    def policy_sent(self) -> PublicKeyPins | None:
        """The header that it sends, parsed; None if there is none, or if it cannot be parsed."""
        try:
            return None if self.header is None else PublicKeyPins.parse(self.header)
        except InvalidHeader:
            return None

    def faults(self, known: Circumstances | None = None, value: str | None = None) -> set[str]:
        """The names of the faults that ``dynpin lint`` finds in a header over this server's chain.

        Args:
            known: what is known besides the host and the chain.
            value: the header; by default the current one.
        """
        chain = tuple(map(str, self.certificate.pins))
        known = replace(known or Circumstances(), scheme="https", chain_valid=True, host=self.host, chain_pins=chain)
        return {found.fault for found in lint(value or self.header, circumstances=known)}


class Site(Answerer):
    """The true site. Its header comes from dynpin's own :class:`~dynpin.middleware.Policy` and WSGI middleware.

    Attributes:
        backups: the keys of its Backup Pins.
        lost: the keys without their private half.
        history: what it has served, in the form of ``dynpin rotate`` and ``dynpin guard``.
    """

    def __init__(
        self,
        world: World,
        host: str,
        name: str,
        authority: Authority,
        certificate: Certificate | None,
        *,
        backups: int,
        terms: KeylessPolicyOptions,
    ) -> None:
        super().__init__(world, host, name, authority, certificate)
        self.history = History(host)
        self.lost: list[KeyPair] = []
        self.backups = [self.makes_key() for _ in range(backups)]
        self._terms = terms
        if world.owners_root is not None:
            terms.setdefault("recovery", world.owners_root)
        self._record_deployment()
        if "max_age" in terms:
            self.pins()

    @property
    def covers_subdomains(self) -> bool:
        """Whether its header covers subdomains."""
        sent = self.policy_sent
        return sent is not None and sent.include_subdomains

    def policy(self, **terms: Unpack[KeylessPolicyOptions]) -> Policy:
        """The policy for the deployed chain and the backups. Terms that are not given stay as they were.

        Raises:
            PolicyError: if dynpin refuses to send such a header.
        """
        merged = self._terms.copy()
        merged.update(terms)
        return Policy(self.certificate.pem, [key.public_pem for key in self.backups], **merged)

    def pins(self, text: str = "", **terms: Unpack[KeylessPolicyOptions]) -> None:
        """Send a header made from the current keys, with these terms from now on.

        Raises:
            PolicyError: if dynpin refuses to send such a header.
        """
        policy = self.policy(**terms)
        self._terms.update(terms)
        self.server.app = PublicKeyPinsWSGIMiddleware(self._answer, policy)
        header = policy.header
        self.header = None if header is None else str(header)
        self._header_name = ENFORCE_NAME if header is None else header.name
        self._record(header)
        self._announce(text or self._told(header), header, self.certificate.pins)

    def sends(self, value: str | None, text: str = "") -> None:
        """Like any server's, and the history records what can be parsed."""
        super().sends(value, text)
        self._record(self.policy_sent)

    def deploys(self, what: KeyPair | Certificate, text: str = "") -> None:
        """Show a key, certified by the site's authority, or a certificate; the header does not change."""
        certificate = self.certifies(what) if isinstance(what, KeyPair) else what
        if certificate.key in self.lost:
            raise ValueError(f"{certificate.key.name} is lost, so nobody can deploy it")
        self._show(certificate)
        self._record_deployment()
        told = f"deploys {self._names([certificate.key.name])}, certified by {certificate.issuer.name}"
        self.world.tells(self.name, text or told, shown=certificate.pins)

    def rotates(self) -> None:
        """Deploy the first backup, make a new backup, and pin both."""
        self.deploys(self.backups.pop(0))
        self.backups.append(self.makes_key())
        self.pins()

    def loses(self, *keys: KeyPair, text: str = "") -> None:
        """Lose the private half of keys: they are never deployed again."""
        self.lost += keys
        self.backups = [key for key in self.backups if key not in keys]
        self.world.tells(self.name, text or f"loses {self._names([key.name for key in keys])}")

    def falls_to(self, attacker: str, text: str = "") -> None:
        """Be taken over by an attacker: from now on every client that is served is fooled, whatever the key."""
        self.reader = attacker
        self.world.tells(attacker, text or f"breaks into the server of {self.name}", target=self.name)

    def is_freed(self, text: str = "") -> None:
        """Return to its owner."""
        self.world.tells(self.reader or self.name, text or f"is gone from the server of {self.name}", target=self.name)
        self.reader = None

    def guard(self, certificate: Certificate) -> Verdict:
        """The verdict of ``dynpin guard`` on deploying a certificate now."""
        return guard(self.history, certificate.pins, self.world.now)

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [self.server.body]

    def _told(self, header: PublicKeyPins | None) -> str:
        if header is None:
            return "sends no pins"
        names = self._names([self.world.name_of(pin) for pin in header.pins])
        if header.report_only:
            return f"tries pins of {names}, report-only"
        return f"pins {names} for {duration(header.max_age)}" if header.max_age else f"unpins {names} with max-age=0"

    def _names(self, keys: list[str]) -> str:
        """Keys in words; the site's own keys by their numbers."""
        own = f"{self.name} key "
        if all(key.startswith(own) for key in keys):
            return f"its {plural(len(keys), 'key')} {_listed([key.removeprefix(own) for key in keys])}"
        return _listed(keys)

    def _record(self, header: PublicKeyPins | None) -> None:
        self.history = self.history.with_event(Published(self.world.now, header))

    def _record_deployment(self) -> None:
        self.history = self.history.with_event(Deployed(self.world.now, self.certificate.pins))


class Attacker(Answerer):
    """An actor who answers instead of a site; the network leads clients to it."""

    def __init__(
        self, world: World, host: str, name: str, authority: Authority, certificate: Certificate | None
    ) -> None:
        super().__init__(world, host, name, authority, certificate)
        self.reader = name
        self._led: tuple[tuple[MutableMapping[str, int], int | None], ...] = ()

    def takes(self, host: str, only: Iterable[Networked] = (), text: str = "") -> None:
        """Let the network lead a name here, for everybody or only for these clients."""
        clients = tuple(only)
        networks = tuple(client.network.maps[0] for client in clients) or (self.world.network,)
        self._led = tuple((network, network.get(host)) for network in networks)
        for network in networks:
            network[host] = self.server.port
        told = f"answers {host} with a certificate of {self.certificate.issuer.name}"
        if clients:
            told = f"{told}, in the network of {' and '.join(client.name for client in clients)}"
        self.world.tells(self.name, text or told, target=host, shown=self.certificate.pins)

    def leaves(self, text: str = "") -> None:
        """Let the network lead to the former server again."""
        for network, before in self._led:
            if before is None:
                network.pop(self.host, None)
            else:
                network[self.host] = before
        self._led = ()
        told = text or f"is gone; {self.host} leads to the true site again"
        self.world.saw(Event(self.world.at, self.name, told, leaves=True))


def _listed(words: list[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
