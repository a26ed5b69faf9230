"""The channels of alerts: each is told by itself, and one that fails or hangs delays no other."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from dynpin.errors import StoreError

from ..formatting import one_line
from ..storage import AuditEntry, ChannelNote, Group, Storage

__all__ = ["ACTIONS", "Channel", "Line", "Message", "Send", "apprise"]

# Sends one message, given its subject and its text.
Send = Callable[[str, str], None]

# What the audit has of a channel, once each time that changes.
FAILED, WORKS = "alert-failed", "alert-works"
ACTIONS = {FAILED: "took no alert", WORKS: "takes alerts again"}
_SUBJECT = "alerts"

_log = logging.getLogger("dynpin.collector")
_MINUTE = 60


class Channel(NamedTuple):
    """One way to tell somebody: what it is called where it fails, without its secrets, and how a message is sent."""

    name: str
    send: Send


class Message(NamedTuple):
    """What a channel is told: of which groups, or a digest of the time until then."""

    subject: str
    text: str
    groups: Sequence[Group] = ()
    digest_at: float | None = None


class _Attempt:
    """One message on its way."""

    def __init__(self, message: Message, at: float) -> None:
        self.message = message
        self.at = at
        self.began = time.monotonic()
        self.error: str | None = None


class Line:
    """One channel, and what is on its way to it.

    A message is sent on a thread, and then the storage learns that it was. What could not be written down is written
    down later, and not sent again.

    Args:
        channel: whom to tell.
        patience: seconds after which a channel that has not answered counts as failing. Until it answers it is told
            nothing more; where it took the message after all, that counts.
    """

    def __init__(self, channel: Channel, patience: float) -> None:
        self.name = channel.name
        self._send = channel.send
        self._patience = patience
        self._attempt: _Attempt | None = None
        self._failed_at: float | None = None
        self._logged_at: float | None = None

    def is_free(self, now: float) -> bool:
        """Whether it may be told something: nothing is on its way, and it has not failed within a minute."""
        return self._attempt is None and not _is_within(_MINUTE, self._failed_at, now)

    def begin(self, message: Message, now: float, finished: queue.Queue[Line]) -> None:
        """Send a message; this line is put into the queue when it has arrived, or failed."""
        attempt = self._attempt = _Attempt(message, now)

        def run() -> None:
            try:
                self._send(message.subject, message.text)
            except Exception as error:  # noqa: BLE001 - a channel may be anybody's code, and the others are to be told
                attempt.error = str(error) or repr(error)
            finished.put(self)

        # A daemon: a channel that hangs holds up no end of the process.
        threading.Thread(target=run, name="dynpin-collector-alert", daemon=True).start()

    def end(self, storage: Storage, note: ChannelNote, now: float) -> bool:
        """Write down what became of the message; whether it arrived."""
        attempt = self._attempt
        if attempt is None:
            return False
        message = attempt.message
        if attempt.error is not None:
            self._attempt, self._failed_at = None, now
            self._fail(attempt.error, storage, note, now)
            return False
        told = replace(note, sent_at=attempt.at, sent=message.subject, failing_since=None)
        if message.digest_at is not None:
            told = replace(told, digest_at=message.digest_at)
        storage.note_channel(told, message.groups)
        self._attempt = self._failed_at = None
        if note.failing_since is not None:
            self._record(WORKS, storage, now)
        return True

    def look(self, storage: Storage, note: ChannelNote, now: float) -> None:
        """Say so where what is on its way has taken too long."""
        if self._attempt is not None and time.monotonic() - self._attempt.began >= self._patience:
            self._fail("it has not answered in time", storage, note, now)

    def _fail(self, reason: str, storage: Storage, note: ChannelNote, now: float) -> None:
        if not _is_within(_MINUTE, self._logged_at, now):
            self._logged_at = now
            _log.error("%s did not take an alert: %s", self.name, one_line(reason))
        if note.failing_since is None:
            storage.note_channel(replace(note, failing_since=now))
            self._record(FAILED, storage, now)

    def _record(self, action: str, storage: Storage, now: float) -> None:
        try:
            storage.record(AuditEntry(now, self.name, "", action, _SUBJECT))
        except StoreError as error:
            _log.warning("that %s %s is not kept: %s", self.name, ACTIONS[action], error)


def _is_within(seconds: float, before: float | None, now: float) -> bool:
    return before is not None and 0 <= now - before < seconds


class _Apprise(Protocol):
    """What is used of Apprise, whose own types are not complete."""

    def add(self, services: str) -> bool: ...
    def notify(self, body: str, title: str, *, body_format: str) -> object: ...


def apprise(urls: Iterable[str]) -> list[Channel]:
    """Send by Apprise: mail, webhooks, Slack, Matrix, ntfy and many more, each by a URL of its own form.

    Raises:
        ModuleNotFoundError: where Apprise is missing; the message names the extra.
        ValueError: for a URL that Apprise cannot use.
    """
    return [_channel(number, url) for number, url in enumerate(urls, start=1)]


def _channel(number: int, url: str) -> Channel:
    # One object each: of several in one, Apprise does not tell which failed. All of a URL but its scheme may be secret.
    scheme, own = f"{url.partition('://')[0]}://…", _apprise()
    if not own.add(url):
        raise ValueError(f"Apprise knows no channel like {scheme}; see its list of services")

    def send(subject: str, text: str) -> None:
        # As text: otherwise a channel that shows HTML or Markdown would be given it as such.
        if not own.notify(text, subject, body_format="text"):
            raise RuntimeError("Apprise could not deliver it; its own log, apprise, says more")

    return Channel(f"alert channel {number} ({scheme})", send)


def _apprise() -> _Apprise:
    try:
        from apprise import Apprise  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "alerts need apprise. Install dynpin again with its extra, from your clone:  pip install '.[alerts]'",
            name=error.name,
        ) from error
    return Apprise()
