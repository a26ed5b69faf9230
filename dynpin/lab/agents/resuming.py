"""Programs that resume TLS sessions: one built on ssl, since httpx never resumes, and wget2 with an option."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from dynpin.clientstore import enforce, note_response, peer_of, pin_violation
from dynpin.header import ENFORCE_NAME
from dynpin.lab.agents.agent import Visit
from dynpin.lab.agents.library import DynpinAgent, one_line
from dynpin.lab.agents.wget2 import Wget2Agent

__all__ = ["Resuming", "ResumingWget2"]


class Resuming(DynpinAgent):
    """dynpin's store and enforcement in a program that resumes TLS sessions.

    Attributes:
        session: the session that the next visit will resume: the newest one.
        first: the session of its first visit.
        resumed: whether the last visit resumed a session.
    """

    session: ssl.SSLSession | None = None
    first: ssl.SSLSession | None = None
    resumed = False
    _context: ssl.SSLContext | None = None

    def visit(self, host: str, *, secret: str, path: str = "/") -> Visit:
        """Like :meth:`UserAgent.visit`, with the session of the last visit."""
        known = self._known_before(host)
        with socket.create_connection(("127.0.0.1", self.machine.network[host])) as connection:
            try:
                tls = self._enforced().wrap_socket(connection, server_hostname=host, session=self.session)
            except OSError as error:
                violation = pin_violation(error)
                if violation is None or violation.validation is None:
                    return Visit(host=host, failure=one_line(error), known_host=known)
                refused = violation.validation
                return Visit(host=host, refusal=refused.reason, chain=refused.chain, known_host=known, section="2.6")
            with tls:
                request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {secret}\r\nConnection: close\r\n\r\n"
                tls.sendall(request.encode())
                answer = b"".join(iter(lambda: tls.recv(65_536), b"")).decode()
                # The tickets come with the answer, not with the handshake.
                self.session, self.resumed = tls.session, bool(tls.session_reused)
                self.first = self.first or self.session
                peer = peer_of(tls)
        name = f"{ENFORCE_NAME}: "
        fields = [line.removeprefix(name) for line in answer.splitlines() if line.startswith(name)]
        noting = note_response(self.store, host, peer, fields) if fields and self.machine.pins else None
        return Visit(
            host=host,
            status=200,
            chain=peer.pins if peer else (),
            known_host=known,
            noting=noting,
            section=noting.section if noting else "",
        )

    def resume_the_first(self) -> None:
        """Let the next visit resume the session of the first."""
        self.session = self.first

    def _enforced(self) -> ssl.SSLContext:
        # One context for all visits: sessions belong to it.
        if self._context is None:
            context = ssl.create_default_context(cadata=b"".join(self.machine.public_roots))
            self._context = enforce(context, self.store) if self.machine.pins else context
        return self._context


class ResumingWget2(Wget2Agent):
    """wget2 with its option ``--tls-resume``: it keeps sessions in a file.

    Attributes:
        first: the content of the file after its first visit.
    """

    sessions = ("--tls-resume", "--tls-session-file=sessions", "--debug")
    first: str | None = None

    def visit(self, host: str, *, secret: str, path: str = "/") -> Visit:
        """Like :meth:`UserAgent.visit`, with the session of the last visit."""
        visit = super().visit(host, secret=secret, path=path)
        self.first = self.first or self.session
        return visit

    @property
    def session(self) -> str | None:
        """The session that the next visit will resume: the newest one."""
        return self._sessions.read_text() if self._sessions.exists() else None

    def resume_the_first(self) -> None:
        """Like :meth:`Resuming.resume_the_first`."""
        self._sessions.write_text(self.first or "")

    @property
    def _sessions(self) -> Path:
        return self.machine.folder / "sessions"
