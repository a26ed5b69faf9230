"""The intake: the answers of a report-uri, the same for ASGI and WSGI.

The head of a request decides whether it is admitted, so that a dropped request costs very little. Then the body is
read and checked, its reports are stored together with those of others, and the request is answered. Nothing that a
sender writes leads to a 500.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import lru_cache
from typing import NamedTuple

from dynpin.errors import InvalidReport, StoreError
from dynpin.report import load_json, unwrap

from ..outage import Outage
from ..storage import HOUR, MODES, Arrival, Cause, Counted, Mode, Outcome, Token
from .bodies import Understood, decoded, understood
from .commit import GroupCommit, Overloaded
from .limits import SOURCE_ADDRESS, Ledger, Limits, Meter, SourceAddress, truncated

__all__ = ["Admission", "Answer", "Intake", "Taken", "is_token"]

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{1,128}")
# Media types that senders use: Chromium application/json; charset=utf-8, the Reporting API application/reports+json,
# fetch() in a page without a preflight text/plain.
_JSON_LIKE = re.compile(r"(?:[a-z]+/(?:[a-z0-9.+-]*json|[a-z0-9.-]+-report)|text/plain|application/octet-stream)?")
_TOKENS_FRESH_FOR = 1.0


def _no_header(_: str) -> str:
    return ""


class Answer:
    """The answer to the sender: a JSON object, or an empty body. It is shared by many requests, so never change it."""

    __slots__ = ("content", "headers", "raw_headers", "status")

    def __init__(self, status: int, body: Mapping[str, object] | None = None, *headers: tuple[str, str]) -> None:
        self.status = status
        self.content = b"" if body is None else json.dumps(body).encode()
        # Any page may send a report (CORS). No cache stores an answer without a body (RFC 9111 §3).
        self.headers = [*headers, ("access-control-allow-origin", "*")]
        if body is not None:
            self.headers += [("content-type", "application/json"), ("cache-control", "no-store")]
        if status != 204:
            self.headers.append(("content-length", str(len(self.content))))
        self.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]


def is_token(text: str) -> bool:
    """Whether a text can be a token in a report-uri, without escapes."""
    return _TOKEN.fullmatch(text) is not None


class Admission(NamedTuple):
    """A request whose body may be read."""

    token: Token
    mode: Mode
    source: str
    user_agent: str
    now: float


class Taken(NamedTuple):
    """The result of a body: the answer, and the reports that must be on the disk before it is sent."""

    answer: Answer
    arrivals: tuple[Arrival, ...] = ()
    stored: Future[None] | None = None


@lru_cache(maxsize=512)
def _refusal(status: int, code: str, message: str, *headers: tuple[str, str]) -> Answer:
    return Answer(status, {"error": code, "message": message}, *headers)


@lru_cache(maxsize=8)
def _too_many(wait: int) -> Answer:
    # As short as possible, since this answers a flood.
    return Answer(429, None, ("retry-after", str(wait)))


_STORED = Answer(204)
_PREFLIGHT = Answer(
    204,
    None,
    ("allow", "POST, OPTIONS"),
    ("access-control-allow-methods", "POST"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-max-age", "86400"),
)


class Intake:
    """Admits requests, reads reports and hands them to the group commit.

    Args:
        commit: stores the reports.
        ledger: counts the answers.
        tokens: gives the valid tokens; called at most once a second.
        outage: is told of each answer 503, except for the reports of a failed batch, which tells it by itself.
        limits: the limits.
        clock: seconds since the epoch, UTC.
        source_address: how much of a client's address is stored.
    """

    def __init__(
        self,
        commit: GroupCommit,
        ledger: Ledger,
        tokens: Callable[[], dict[str, Token]],
        outage: Outage,
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
        source_address: SourceAddress = SOURCE_ADDRESS,
    ) -> None:
        self.limits = limits or Limits()
        self.clock = clock
        self._commit = commit
        self._ledger = ledger
        self.meter = Meter(self.limits)
        self._source_address = source_address
        self._tokens = tokens
        self._outage = outage
        # Why the tokens could not be read from the storage.
        self._policies: dict[str, tuple[Token, Mode]] | StoreError = {}
        self._tokens_read_at = float("-inf")

    def admit(
        self, method: str, path: str, client: str | None = None, header: Callable[[str], str] = _no_header
    ) -> Answer | Admission:
        """Decide by the head of a request whether to read its body.

        `path` begins with ``/r/``. `header` gives a header by its name in lower case, or ``""``. It is called only if
        the request is within the limits.
        """
        if not self.knows_tokens():
            self.read_tokens()
        now, policies = self.clock(), self._policies
        if isinstance(policies, StoreError):
            self._outage.failed(policies, method == "POST")
            self._count(now, "", "rejected", "not-stored")
            return _refusal(503, "not-stored", "the report could not be stored", ("retry-after", "60"))
        policy = policies.get(path)
        if policy is None:
            self._count(now, "", "rejected", "unknown-token")
            return _refusal(404, "unknown-token", "no policy has this report-uri; the set-up page shows the valid ones")
        token, mode = policy
        if method == "OPTIONS":
            return _PREFLIGHT
        if method != "POST":
            self._count(now, token.token, "rejected", "method")
            return _refusal(405, "method", "send reports by POST (RFC 7469 §3)", ("allow", "POST, OPTIONS"))
        source = truncated(client, self._source_address)
        exceeded = self.meter.exceeded(token.token, source, now)
        if exceeded is not None:
            # A flood ends here: no header was looked at, and no body is read.
            self._count(now, token.token, "rejected", exceeded)
            return _too_many(max(1, int(HOUR - now % HOUR)))
        unfit = self._unfit(header)
        if unfit is not None:
            self._count(now, token.token, "rejected", unfit[1])
            return _refusal(*unfit)
        return Admission(token, mode, source, header("user-agent")[:300], now)

    def knows_tokens(self) -> bool:
        """Whether the tokens were read within the last second. If not, the next request reads them."""
        return 0 <= self.clock() - self._tokens_read_at < _TOKENS_FRESH_FOR

    def read_tokens(self) -> None:
        """Read the tokens from the storage. This may take seconds, so an event loop calls it on a thread."""
        try:
            # All valid paths of reports, so that a request needs one look-up.
            self._policies = {
                f"/r/{token.token}/{mode}{end}": (token, mode)
                for token in self._tokens().values()
                if is_token(token.token)
                for mode in MODES
                for end in ("", "/")
            }
        except StoreError as error:
            self._policies = error
        # Count the second from the end, also after a failure, so that requests do not queue for a dead storage.
        self._tokens_read_at = self.clock()

    def too_large(self, admission: Admission) -> Answer:
        """The answer to a body that turned out longer than the limit."""
        self._count(admission.now, admission.token.token, "rejected", "too-large")
        return _refusal(*self._size())

    def too_slow(self, admission: Admission) -> Answer:
        """The answer to a body that did not arrive in time."""
        self._count(admission.now, admission.token.token, "rejected", "too-slow")
        message = f"the body did not arrive within {self.limits.body_seconds:g} seconds"
        return _refusal(408, "too-slow", message)

    def gone(self, admission: Admission) -> Answer:
        """Count a request whose sender disconnected before the end of the body. Nobody reads the answer."""
        self._count(admission.now, admission.token.token, "rejected", "hung-up")
        return _refusal(400, "hung-up", "the connection ended within the body")

    def take(self, admission: Admission, body: bytes) -> Taken:
        """Read a body, and queue its reports for the disk."""
        try:
            text = decoded(body)
            loaded = load_json(text)
        except InvalidReport as error:
            return self._rejected(admission, error)
        entries = unwrap(loaded)
        if not entries:
            return self._rejected(admission, InvalidReport("empty", "the list has no report"))
        if not isinstance(loaded, list):
            try:
                only = understood(entries[0], admission.mode)
            except InvalidReport as error:
                return self._rejected(admission, error)
            # The body is stored as it was sent, unless it was in an envelope.
            return self._take_one(admission, only, text if entries[0] is loaded else json.dumps(entries[0]))
        return self._take_several(admission, entries)

    def overloaded(self, admission: Admission, reports: int, error: BaseException | None = None) -> Answer:
        """The answer 503 if nothing could be stored. The sender may try again."""
        token = admission.token.token
        self._count(admission.now, token, "rejected", "not-stored", reports)
        if error is not None:
            self._count(
                admission.now, token, "accepted", "", -reports
            )  # they were counted as accepted when they were queued
        message = "too many reports wait for the disk" if error is None else "the report could not be stored"
        return _refusal(503, "not-stored", message, ("retry-after", "60"))

    # -- one body -----------------------------------------------------------------------------------------------

    def _take_one(self, admission: Admission, only: Understood, body: str) -> Taken:
        if not admission.token.takes(only.cause.host):
            self._count(admission.now, admission.token.token, "filtered", "other-host")
            return Taken(Answer(200, {"accepted": 0, "declined": [{"report": 0, "error": "other-host"}]}))
        return self._store(admission, (_arrival(admission, only, body),), _STORED)

    def _take_several(self, admission: Admission, entries: list[object]) -> Taken:
        now, token = admission.now, admission.token.token
        arrivals: list[Arrival] = []
        declined: list[dict[str, object]] = []
        for index, entry in enumerate(entries):
            error = self.meter.exceeded(token, admission.source, now) if index else None
            if index >= self.limits.batch:
                error = "too-many-reports"
            if error is None:
                try:
                    one = understood(entry, admission.mode)
                except InvalidReport as invalid:
                    error = invalid.code
                else:
                    if admission.token.takes(one.cause.host):
                        arrivals.append(_arrival(admission, one, json.dumps(entry)))
                    else:
                        error = "other-host"
            if error is not None:
                outcome: Outcome = "filtered" if error in _FILTERED else "rejected"
                self._count(now, token, outcome, error)
                if len(declined) < self.limits.batch:
                    declined.append({"report": index, "error": error})
        answer = Answer(200, {"accepted": len(arrivals), "declined": declined}) if declined else _STORED
        return self._store(admission, tuple(arrivals), answer)

    def _store(self, admission: Admission, arrivals: tuple[Arrival, ...], answer: Answer) -> Taken:
        if not arrivals:
            return Taken(answer)
        try:
            stored = self._commit.submit(arrivals)
        except Overloaded:
            self._outage.overloaded(len(arrivals))
            return Taken(self.overloaded(admission, len(arrivals)))
        self._count(admission.now, admission.token.token, "accepted", "", len(arrivals))
        return Taken(answer, arrivals, stored)

    def _rejected(self, admission: Admission, error: InvalidReport) -> Taken:
        if error.code in _FILTERED:
            self._count(admission.now, admission.token.token, "filtered", error.code)
            return Taken(Answer(200, {"accepted": 0, "declined": [{"report": 0, "error": error.code}]}))
        self._count(admission.now, admission.token.token, "rejected", error.code)
        return Taken(_refusal(400, error.code, error.message))

    # -- the head -----------------------------------------------------------------------------------------------

    def _unfit(self, header: Callable[[str], str]) -> tuple[int, str, str] | None:
        length = header("content-length")
        if length.isdecimal() and int(length[:12]) > self.limits.body:
            return self._size()
        media_type = _media_type(header("content-type")[:300])
        if not _JSON_LIKE.fullmatch(media_type):
            return 415, "media-type", f"{media_type[:80]!r} is not JSON; a report is application/json"
        if header("content-encoding").strip().lower() not in ("", "identity"):
            return 415, "content-encoding", "send the report as it is, not compressed"
        return None

    def _size(self) -> tuple[int, str, str]:
        return 413, "too-large", f"a report has at most {self.limits.body} bytes"

    def _count(self, now: float, token: str, outcome: Outcome, reason: str, number: int = 1) -> None:
        self._ledger.count(_counted(int(now // HOUR), token, outcome, reason), number)


# Reasons for a valid request that is not for us (filtered). All other reasons mean rejected.
_FILTERED = frozenset({"other-report-type", "other-host"})


# A flood gets the same answer each time. Making it anew took a tenth of the time of a request.
_counted = lru_cache(maxsize=256)(Counted)


@lru_cache(maxsize=4096)
def _of_policy(cause: Cause, token: str) -> Cause:
    """The cause with the token in its key, since each policy has its own keys and inventory for the verdict."""
    return cause._replace(key=hashlib.sha256(f"{token}\0{cause.key}".encode()).hexdigest()[:32])


def _arrival(admission: Admission, one: Understood, body: str) -> Arrival:
    return Arrival(
        cause=_of_policy(one.cause, admission.token.token),
        flags=one.flags,
        observed_at=one.observed_at,
        expires_at=one.expires_at,
        token=admission.token.token,
        source=admission.source,
        user_agent=admission.user_agent,
        received_at=admission.now,
        body=body,
    )


@lru_cache(maxsize=64)
def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
