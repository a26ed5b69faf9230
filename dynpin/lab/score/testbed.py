"""The servers of a rule: keys, a CA, and a server for each host on loopback that counts what it receives."""

from __future__ import annotations

import contextlib
import re
import ssl
from dataclasses import replace
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Self

from dynpin.lab.certificates import Authority, Certificate, KeyPair
from dynpin.lab.loopback import LoopbackServer
from dynpin.lab.network import TLSServer
from dynpin.lab.score.rules import Serve, Visit

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["Keys", "PlainServer", "Testbed"]

_PLACEHOLDER = re.compile(r"\{(?:(http|url):)?([A-Za-z0-9.-]+)\}")
# Bytes: a report contains several certificates.
_MOST_BODY = 1_000_000


class Keys:
    """The keys and authorities for all rules of a run. They are new in each run, and used nowhere else."""

    def __init__(self) -> None:
        self.root = Authority("Score Root")
        self.intermediate = self.root.intermediate("Score Intermediate")
        self.other_root = Authority("Score Other Root")
        self.untrusted = Authority("Score Untrusted Root")
        self.leaves = {name: KeyPair(name, "score") for name in "ABCDX"}
        self.pins = {name: str(key.pin) for name, key in self.leaves.items()}
        self.pins |= {"I": str(self.intermediate.key.pin), "R": str(self.root.key.pin)}

    @cached_property
    def trusted(self) -> str:
        """The roots that an agent trusts, PEM."""
        return (self.root.pem + self.other_root.pem).decode("ascii")

    def certificate(self, host: str, chain: str) -> Certificate:
        """The chain that a rule names, for a host."""
        leaf, plus, along = chain.partition("+")
        leaf, _, kind = leaf.partition("@")
        authority = {"other-root": self.other_root, "untrusted": self.untrusted}.get(kind, self.intermediate)
        subject = "elsewhere.test" if kind == "wrong-name" else host
        certificate = authority.issue(subject, self.leaves[leaf], expired=kind == "expired")
        if plus:
            other = self.intermediate.issue(host, self.leaves[along])
            certificate = replace(certificate, served=(*certificate.served, other.served[0]))
        return certificate


class Testbed:
    """The servers for one agent and one rule; a context manager.

    Args:
        keys: the keys for their certificates.
    """

    __test__ = False  # the name looks like a test class to pytest

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._stack = contextlib.ExitStack()
        self._servers: dict[tuple[str, int], TLSServer] = {}
        # One context for each chain and port, since sessions belong to a context.
        self._contexts: dict[tuple[str, int, str], ssl.SSLContext] = {}
        self._plain: PlainServer | None = None

    @property
    def plain(self) -> PlainServer:
        """The server for plain HTTP, for all hosts."""
        if self._plain is None:
            self._plain = self._stack.enter_context(PlainServer())
        return self._plain

    def tls(self, host: str, port: int = 1) -> TLSServer:
        """The TLS server of a host, at one of its ports."""
        place = (host.lower(), port)
        if place not in self._servers:
            certificate = self._keys.certificate(host.lower(), "A")
            self._servers[place] = self._stack.enter_context(TLSServer(certificate))
        return self._servers[place]

    def serve(self, step: Serve | Visit) -> str:
        """Set what a host shows and sends, and return its URL."""
        fields = [(name, self._filled(value)) for name, value in step.headers]
        status, port, scheme, body = 200, 1, "https", "hello"
        if isinstance(step, Visit):
            status, port, scheme, body = step.status, step.port, step.scheme, self._filled(step.body) or body
            if step.redirect is not None:
                status = 302
                fields.append(("Location", f"{self._url(step.redirect)}/"))
        fields.append(("Content-Type", "text/html" if body.startswith("<") else "text/plain"))
        if scheme == "http":
            self.plain.answer = (status, fields, body)
            return f"http://{step.host}:{self.plain.port}/"
        server = self.tls(step.host, port)

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
            start_response(f"{status} As Told", fields)
            return [body.encode()]

        server.app = app
        place = (step.host.lower(), port, step.chain)
        if place not in self._contexts:
            server.show(self._keys.certificate(step.host.lower(), step.chain))
            self._contexts[place] = server.context
        server.use(self._contexts[place])
        return f"{self._url(step.host, port)}/"

    def wait_until_read(self, *, at_once: bool) -> None:
        """Wait until everything that was sent has been read; `at_once` if the agent's process keeps connections."""
        for server in self._servers.values():
            if at_once:
                server.end_connections()
            server.wait_idle()

    def __enter__(self) -> Testbed:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _url(self, host: str, port: int = 1) -> str:
        return f"https://{host}:{self.tls(host, port).port}"

    def _filled(self, value: str) -> str:
        return _PLACEHOLDER.sub(self._value, value)

    def _value(self, found: re.Match[str]) -> str:
        kind, name = found[1], found[2]
        if kind == "http":
            return f"http://{name}:{self.plain.port}/report"
        return f"{self._url(name)}/report" if kind == "url" else self._keys.pins[name]


class PlainServer:
    """A server for plain HTTP on 127.0.0.1. It gives the same answer to every GET, and keeps what is POSTed.

    Attributes:
        answer: the status, header fields and body for every GET.
        requests: how many requests have arrived.
        reports: the bodies that were POSTed.
    """

    def __init__(self) -> None:
        self.answer: tuple[int, list[tuple[str, str]], str] = (200, [], "")
        self.requests = 0
        self.reports: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 30

            def do_GET(self) -> None:
                outer.requests += 1
                status, fields, body = outer.answer
                self._reply(status, fields, body.encode())

            def do_POST(self) -> None:
                outer.requests += 1
                length = self.headers.get("Content-Length", "")
                outer.reports.append(self.rfile.read(min(int(length), _MOST_BODY)) if length.isdecimal() else b"")
                self._reply(204, [], b"")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base
                pass

            def _reply(self, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
                self.send_response(status)
                for name, value in fields:
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = LoopbackServer(Handler)
        self.port: int = self._server.server_port

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.__exit__(*exc_info)
