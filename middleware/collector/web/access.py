"""Who may read the reports: people with a password or with a name from a reverse proxy, and programs with tokens."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from dynpin.counts import counted
from dynpin.errors import StoreError

from ..addresses import address
from ..fork import renew_after_fork
from ..formatting import one_line
from ..outage import Repeated
from ..proxies import TrustedProxies
from ..storage import TOKEN_PREFIX, APIToken, AuditEntry, Storage
from .pauses import Pauses, source_of

__all__ = ["COOKIE", "SESSION_S", "Access", "Refused", "Viewer"]

COOKIE = "dynpin_session"
SESSION_S = 12 * 3600
_USED_EVERY_S = 60
_EVERYTHING = frozenset({"read", "triage"})
_CLEAR_TEXT = (
    "a token is refused over http, since others could read it: use https. If https ends at a reverse proxy, the proxy "
    "must be in trusted_proxies (--trusted-proxy) and send X-Forwarded-Proto"
)
_log = logging.getLogger("dynpin.collector")


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who may read: the name for the page, and the token of their forms against CSRF.

    If they may not read everything, `sites` are the hosts that they may read about, with their subdomains.
    """

    name: str
    csrf: str
    has_session: bool = False
    scopes: frozenset[str] = field(default=_EVERYTHING)

    @property
    def sites(self) -> tuple[str, ...]:
        """The hosts of the scopes."""
        return tuple(scope.removeprefix("site:") for scope in sorted(self.scopes) if scope.startswith("site:"))

    def has_site(self, host: str) -> bool:
        """Whether a host is one of `sites`, or a subdomain of one."""
        return any(host == site or host.endswith(f".{site}") for site in self.sites)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why access is refused: the status, a stable name, and a message.

    `wait` is the time after which they may try again, in seconds.
    """

    status: int
    code: str
    message: str
    wait: int = 0


def _checked(argon2_hash: str) -> str:
    try:
        PasswordHasher().verify(argon2_hash, "")
    except VerifyMismatchError:
        pass
    except (InvalidHashError, VerificationError):
        raise ValueError(
            "the password begins like an argon2 hash, and is not one, so nobody could sign in: copy the whole hash"
        ) from None
    return argon2_hash


class Access:
    """Decides who may read.

    Args:
        storage: stores sessions, tokens and the record of actions.
        clock: seconds since the epoch, UTC.
        password: the password, or its argon2 hash.
        user_header: the header in which a reverse proxy names the signed-in user.
        open_access: let everyone read.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Callable[[], float],
        *,
        password: str | None,
        user_header: str | None,
        open_access: bool,
    ) -> None:
        self.user_header = user_header
        self.open_access = open_access
        self._storage = storage
        self._faults = Repeated()
        self._clock = clock
        self._hasher = PasswordHasher()
        self._hash = None
        if password is not None:
            self._hash = _checked(password) if password.startswith("$argon2") else self._hasher.hash(password)
        # A part of each session's key in the storage, so that a new password ends all sessions.
        self._session_key = (password or "").encode()
        self._right: str | None = None
        self._pauses = Pauses(clock)
        self.renew()
        renew_after_fork(self)

    @property
    def has_password(self) -> bool:
        """Whether people can sign in with a password."""
        return self._hash is not None

    @property
    def is_closed(self) -> bool:
        """Whether nobody can read, since no way to sign in is set."""
        return not (self.open_access or self.user_header or self.has_password)

    def renew(self) -> None:
        """Start without a thread."""
        # Passwords are checked in one thread of their own, so that guesses delay only people who sign in.
        self._checker = ThreadPoolExecutor(1, "dynpin-collector-passwords")

    async def viewer(self, request: Request) -> Viewer | Refused | None:
        """Who sends the request, or why it is refused; None if it has no credentials.

        Raises:
            StoreError: if the storage cannot be read.
        """
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if self.open_access and scheme.lower() == "bearer" and credentials.strip().startswith(TOKEN_PREFIX):
            # Everyone may read. A node still needs its token to change the state of its site.
            found = await run_in_threadpool(self._bearer, credentials.strip(), request)
            return found if isinstance(found, Refused) else replace(found, scopes=found.scopes | _EVERYTHING)
        viewer = await run_in_threadpool(self._named, request)
        if viewer is not None:
            return viewer
        if scheme.lower() == "bearer":
            return await run_in_threadpool(self._bearer, credentials.strip(), request)
        if scheme.lower() != "basic" or not self.has_password:
            return None
        account, password = _basic(credentials)
        refused = await self.refused(password, account, request)
        if refused is not None:
            return refused
        return Viewer(account or "program", await run_in_threadpool(self._csrf, f"basic:{credentials}"))

    def _named(self, request: Request) -> Viewer | None:
        if self.open_access:
            return Viewer("everyone", self._csrf("open"))
        if self.user_header:
            # Twice: the proxy has added its own to that of a client, who may be anybody.
            user, *others = request.headers.getlist(self.user_header) or [""]
            if user and not others:
                return Viewer(user[:200], self._csrf(f"user:{user}"))
        session = request.cookies.get(COOKIE, "")
        name = self._storage.session(self._identity(session)) if session and self.has_password else None
        return None if name is None else Viewer(name, self._csrf(f"session:{session}"), has_session=True)

    # -- tokens of programs -------------------------------------------------------------------------------------------

    def _bearer(self, text: str, request: Request) -> Viewer | Refused:
        token = self._storage.api_token(_digest(text))
        if token is not None and not _is_private(request):
            # Anybody on the way may have read the token now, so the operator must know.
            self.record(request, f"token {token.name}", "clear-text-token")
            return Refused(403, "clear-text", _CLEAR_TEXT)
        why = "not known" if token is None else token.ended(self._clock())
        if token is None or why:
            return Refused(401, "token", f"this token is {why}; dynpin collect api-tokens list shows the tokens")
        self._note_use(token)
        return Viewer(f"token {token.name}", self._csrf(f"token:{text}"), scopes=frozenset(token.scopes))

    def _note_use(self, token: APIToken) -> None:
        now = self._clock()
        if token.used_at is None or not 0 <= now - token.used_at < _USED_EVERY_S:
            try:
                self._storage.use_api_token(token.digest, now)
            except StoreError as error:
                if self._faults.fails(token.name, now):
                    _log.warning("the last use of token %s could not be stored: %s", one_line(token.name), error)
            else:
                if self._faults.ends(token.name):
                    _log.warning("the last use of token %s is stored again", one_line(token.name))

    # -- the password -------------------------------------------------------------------------------------------------

    async def refused(self, password: str, account: str, request: Request) -> Refused | None:
        """Why the password is refused; None if it is right."""
        if self._hash is None or not password:
            return Refused(401, "sign-in", "sign in, or send the password")
        source = source_of(_address(request))
        paused = self._paused(source, account)
        # A program sends the password with each request. Compute argon2 once for the right password, not each time.
        if paused is not None or self._is_known(password):
            return paused
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._checker, self._try, self._hash, password, account, source)

    def _try(self, right: str, password: str, account: str, source: str) -> Refused | None:
        """Check the password in the one thread that counts wrong guesses. The pause is read again here."""
        paused = self._paused(source, account)
        if paused is not None or self._is_known(password):
            return paused
        try:
            self._hasher.verify(right, password)
        except (VerificationError, InvalidHashError):
            self._pauses.wrong(source, account)
            self._keep(AuditEntry(self._clock(), account, source, "sign-in-failed"))
            return Refused(401, "sign-in", "the password is wrong")
        self._right = _digest(password)
        return None

    def _paused(self, source: str, account: str) -> Refused | None:
        wait = self._pauses.left(source, account)
        if not wait:
            return None
        minutes = -(-wait // 60)
        text = (
            "too many wrong passwords; even the right one is refused for now: "
            f"try again in {counted(minutes, 'minute')}"
        )
        return Refused(429, "paused", text, wait)

    def _is_known(self, text: str) -> bool:
        return self._right is not None and hmac.compare_digest(self._right, _digest(text))

    # -- sessions -----------------------------------------------------------------------------------------------------

    async def sign_in(self, password: str, name: str, request: Request) -> str | Refused:
        """Start a session if the password is right: the text for the cookie. The storage has only its hash."""
        refused = await self.refused(password, name, request)
        if refused is not None:
            return refused
        session = secrets.token_urlsafe(32)
        await run_in_threadpool(
            self._storage.add_session, self._identity(session), name or "signed in", self._clock() + SESSION_S
        )
        await run_in_threadpool(self.record, request, name, "sign-in")
        return session

    def sign_out(self, request: Request) -> None:
        """End the session of the request."""
        self._storage.end_session(self._identity(request.cookies.get(COOKIE, "")))

    def _identity(self, session: str) -> str:
        return hmac.new(self._session_key, session.encode(), hashlib.sha256).hexdigest()

    def is_own_form(self, viewer: Viewer, csrf: str) -> bool:
        """Whether a form came from our page, and not from another site (CSRF)."""
        return hmac.compare_digest(viewer.csrf.encode(), csrf.encode())

    def _csrf(self, who: str) -> str:
        try:
            # Read each time: another storage may be in place of this one, and all nodes must agree.
            secret = self._storage.secret()
        except StoreError:
            # They may read, so a page tells them what is wrong. No form of that page is accepted later.
            return secrets.token_hex(32)
        return hmac.new(secret.encode(), who.encode(), hashlib.sha256).hexdigest()

    # -- the record of actions ----------------------------------------------------------------------------------------

    def entry(self, request: Request, who: str, action: str, subject: str = "") -> AuditEntry:
        """The entry for an action that happens now."""
        return AuditEntry(self._clock(), who, source_of(_address(request)), action, subject)

    def record(self, request: Request, who: str, action: str, subject: str = "") -> None:
        """Store an action. If that fails, the action itself still holds, and the log has it."""
        self._keep(self.entry(request, who, action, subject))

    def _keep(self, entry: AuditEntry) -> None:
        try:
            self._storage.record(entry)
        except StoreError as error:
            _log.warning(
                "%s of %s from %s could not be stored: %s", entry.action, one_line(entry.who), entry.source, error
            )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _basic(credentials: str) -> tuple[str, str]:
    """The account and the password of HTTP Basic (RFC 7617)."""
    try:
        account, _, password = b64decode(credentials, validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    return account[:100], password


def _address(request: Request) -> str | None:
    return request.client.host if request.client else None


def _is_private(request: Request) -> bool:
    """Whether the request came by https, or from this machine, so that nobody on the way can read it."""
    if request.scope.get("scheme") == "https":
        return True
    if TrustedProxies.is_forwarded(request.scope["headers"]):
        return False  # a proxy on this machine, whose client may be anywhere
    peer = _address(request)
    if not peer:
        return True  # a Unix socket
    parsed = address(peer)
    return parsed is not None and parsed.is_loopback
