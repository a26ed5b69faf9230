"""The channels of alerts. Each one works alone: a channel that fails or hangs delays no other."""

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
from ..outage import Repeated
from ..storage import AuditEntry, ChannelNote, Group, Storage

__all__ = ["ACTIONS", "Channel", "Line", "Message", "Send", "apprise"]

# Sends one message, from its subject and its text.
Send = Callable[[str, str], None]

# The audit's entries for a channel, one for each change.
FAILED, WORKS = "alert-failed", "alert-works"
ACTIONS = {FAILED: "took no alert", WORKS: "takes alerts again"}
_SUBJECT = "alerts"

_log = logging.getLogger("dynpin.collector")
_MINUTE = 60


class Channel(NamedTuple):
    """One channel: its name for people, without secrets, and the function that sends a message."""

    name: str
    send: Send


class Message(NamedTuple):
    """A message: about these groups, or a digest of the time until `digest_at`."""

    subject: str
    text: str
    groups: Sequence[Group] = ()
    digest_at: float | None = None


class _Attempt:
    """A message that is being sent."""

    def __init__(self, message: Message, at: float) -> None:
        self.message = message
        self.at = at
        self.began = time.monotonic()
        self.error: str | None = None


class Line:
    """One channel, and the message that is being sent to it.

    A message is sent on a thread, and then the storage is told. If this fails, the storage is told later, and the
    message is not sent again.

    Args:
        channel: the channel.
        patience: seconds after which a channel without an answer counts as failing. It gets no further message until
            it answers. If it took the message in the end, that counts.
    """

    def __init__(self, channel: Channel, patience: float) -> None:
        self.name = channel.name
        self._send = channel.send
        self._patience = patience
        self._attempt: _Attempt | None = None
        self._failed_at: float | None = None
        self._faults = Repeated()

    def is_free(self, now: float) -> bool:
        """Whether it may get a message: none is being sent, and none has failed within a minute."""
        return self._attempt is None and not _is_within(_MINUTE, self._failed_at, now)

    def begin(self, message: Message, now: float, finished: queue.Queue[Line]) -> None:
        """Send a message on a thread. When it was taken, or has failed, this line is put into the queue."""
        attempt = self._attempt = _Attempt(message, now)

        def run() -> None:
            try:
                self._send(message.subject, message.text)
            except Exception as error:  # noqa: BLE001 - a channel may be any code, and must not stop the others
                attempt.error = str(error) or repr(error)
            finished.put(self)

        # A daemon thread, so that a channel that hangs does not delay the end of the process.
        threading.Thread(target=run, name="dynpin-collector-alert", daemon=True).start()

    def end(self, storage: Storage, note: ChannelNote, now: float) -> bool:
        """Store the result of the message. True if the channel took it."""
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
        if self._faults.ends("send"):
            _log.warning("%s takes alerts again", self.name)
        if note.failing_since is not None:
            self._record(WORKS, storage, now)
        return True

    def look(self, storage: Storage, note: ChannelNote, now: float) -> None:
        """If the message takes too long, log it and store that the channel fails."""
        if self._attempt is not None and time.monotonic() - self._attempt.began >= self._patience:
            self._fail("it has not answered in time", storage, note, now)

    def _fail(self, reason: str, storage: Storage, note: ChannelNote, now: float) -> None:
        if self._faults.fails("send", now):
            _log.error("%s did not take an alert: %s", self.name, one_line(reason))
        if note.failing_since is None:
            storage.note_channel(replace(note, failing_since=now))
            self._record(FAILED, storage, now)

    def _record(self, action: str, storage: Storage, now: float) -> None:
        try:
            storage.record(AuditEntry(now, self.name, "", action, _SUBJECT))
        except StoreError as error:
            _log.warning("that %s %s could not be stored: %s", self.name, ACTIONS[action], error)


def _is_within(seconds: float, before: float | None, now: float) -> bool:
    return before is not None and 0 <= now - before < seconds


class _Apprise(Protocol):
    """The methods of Apprise that are used here, since its own types are incomplete."""

    def add(self, services: str) -> bool: ...
    def notify(self, body: str, title: str, *, body_format: str) -> object: ...


def apprise(urls: Iterable[str]) -> list[Channel]:
    """Channels of Apprise: mail, webhooks, Slack, Matrix, ntfy and many more, one for each URL.

    Raises:
        ModuleNotFoundError: if Apprise is missing; the message names the extra.
        ValueError: if Apprise cannot use a URL.
    """
    return [_channel(number, url) for number, url in enumerate(urls, start=1)]


def _channel(number: int, url: str) -> Channel:
    # One object for each URL: with several, Apprise does not say which failed. A URL may hold secrets after its scheme.
    scheme, own = f"{url.partition('://')[0]}://…", _apprise()
    if not own.add(url):
        raise ValueError(f"Apprise knows no channel like {scheme}; see its list of services")

    def send(subject: str, text: str) -> None:
        # As plain text: otherwise Apprise would send it as HTML or Markdown to a channel that shows these.
        if not own.notify(text, subject, body_format="text"):
            raise RuntimeError("Apprise could not deliver it; the log of Apprise (logger apprise) says more")

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
