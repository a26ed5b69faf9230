"""Who may read the reports: a password, the user that a reverse proxy names, or everyone. The intake stays public."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from ..fork import renew_after_fork
from ..intake import truncated
from ..service import Service

__all__ = ["COOKIE", "Access", "Viewer"]

COOKIE = "dynpin_session"
SESSION_S = 12 * 3600
# argon2 is dear on purpose: a few wrong guesses, then a pause.
_GUESSES = 10
_PAUSE_S = 900


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who may read: a name for the page, and the token that their forms carry (CSRF)."""

    name: str
    csrf: str
    has_session: bool = False


class Access:
    """Decides who reads.

    Args:
        service: whose clock and storage to use.
        password: the password, or its argon2 hash.
        user_header: the header in which a reverse proxy names the user that it has signed in. The proxy must remove
            it from what clients send.
        open_access: let everyone read.
    """

    def __init__(self, service: Service, *, password: str | None, user_header: str | None, open_access: bool) -> None:
        self.user_header = user_header
        self.open_access = open_access
        self._service = service
        self._hasher = PasswordHasher()
        self._hash = None
        if password is not None:
            self._hash = password if password.startswith("$argon2") else self._hasher.hash(password)
        self._right: str | None = None
        self._wrong: dict[str, tuple[float, int]] = {}
        self._secret = ""
        self.renew()
        renew_after_fork(self)

    @property
    def has_password(self) -> bool:
        """Whether there is a password to sign in with."""
        return self._hash is not None

    @property
    def is_closed(self) -> bool:
        """Whether nobody can ever read."""
        return not (self.open_access or self.user_header or self.has_password)

    def renew(self) -> None:
        """Begin without a thread."""
        # Passwords have one thread of their own, so that guesses make nobody wait but who signs in.
        self._checker = ThreadPoolExecutor(1, "dynpin-collector-passwords")

    async def viewer(self, request: Request) -> Viewer | None:
        """Who asks, or None for somebody who may not read."""
        viewer = await run_in_threadpool(self._named, request)
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if viewer is not None or scheme.lower() != "basic":
            return viewer
        if await self.is_password(_password_of(credentials), _source(request)):
            return Viewer("program", await run_in_threadpool(self._csrf, f"basic:{credentials}"))
        return None

    def _named(self, request: Request) -> Viewer | None:
        if self.open_access:
            return Viewer("everyone", self._csrf("open"))
        if self.user_header:
            user = request.headers.get(self.user_header, "")
            if user:
                return Viewer(user[:200], self._csrf(f"user:{user}"))
        session = request.cookies.get(COOKIE, "")
        if session and self._service.storage.session(_digest(session)) is not None:
            return Viewer("signed in", self._csrf(f"session:{session}"), has_session=True)
        return None

    async def is_password(self, text: str, source: str) -> bool:
        """Whether this is the password; after some wrong guesses a network must wait."""
        if self._hash is None or not text or self._must_wait(source):
            return False
        # A program signs in with each request: what argon2 has found right once is not worked out again.
        if self._is_known(text):
            return True
        return await asyncio.get_running_loop().run_in_executor(self._checker, self._try, self._hash, text, source)

    def _try(self, right: str, text: str, source: str) -> bool:
        """Work it out, in the one thread that counts wrong guesses; what it found out meanwhile holds."""
        if self._must_wait(source):
            return False
        if self._is_known(text):
            return True
        try:
            self._hasher.verify(right, text)
        except (VerificationError, InvalidHashError):
            now = self._service.clock()
            since, wrong = self._wrong.get(source, (now, 0))
            if len(self._wrong) > 10_000:
                self._wrong.clear()
            self._wrong[source] = (now, 1) if now - since > _PAUSE_S else (since, wrong + 1)
            return False
        self._right = _digest(text)
        return True

    def _must_wait(self, source: str) -> bool:
        now = self._service.clock()
        since, wrong = self._wrong.get(source, (now, 0))
        return wrong >= _GUESSES and now - since <= _PAUSE_S

    def _is_known(self, text: str) -> bool:
        return self._right is not None and hmac.compare_digest(self._right, _digest(text))

    async def sign_in(self, password: str, source: str) -> str | None:
        """The session of a right password: what stands in the cookie; the storage knows its hash alone."""
        if not await self.is_password(password, source):
            return None
        session = secrets.token_urlsafe(32)
        expires_at = self._service.clock() + SESSION_S
        await run_in_threadpool(self._service.storage.add_session, _digest(session), "signed in", expires_at)
        return session

    def sign_out(self, request: Request) -> None:
        """End the session that the request has."""
        self._service.storage.end_session(_digest(request.cookies.get(COOKIE, "")))

    def is_own_form(self, viewer: Viewer, csrf: str) -> bool:
        """Whether a form came from our page and not from another site's (CSRF)."""
        return hmac.compare_digest(viewer.csrf.encode(), csrf.encode())

    def _csrf(self, who: str) -> str:
        if not self._secret:
            self._secret = self._service.storage.secret()
        return hmac.new(self._secret.encode(), who.encode(), hashlib.sha256).hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _password_of(credentials: str) -> str:
    try:
        decoded = b64decode(credentials, validate=True).decode()
    except ValueError:
        return ""
    return decoded.partition(":")[2]


def _source(request: Request) -> str:
    return truncated(request.client.host if request.client else None)
