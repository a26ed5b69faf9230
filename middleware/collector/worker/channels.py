"""The channels of alerts: each is told by itself, within seconds, and one that fails is shown until it works again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from dynpin.errors import StoreError

from ..formatting import one_line
from ..storage import AuditEntry, Storage

__all__ = ["ACTIONS", "Channel", "Channels", "Send", "apprise", "failing_channels"]

# Sends one message, given its subject and its text.
Send = Callable[[str, str], None]

# What the audit has of a channel, once each time that changes.
FAILED, WORKS = "alert-failed", "alert-works"
ACTIONS = {FAILED: "took no alert", WORKS: "takes alerts again"}
_SUBJECT = "alerts"
_MOST_CHANNELS = 100

_log = logging.getLogger("dynpin.collector")
_MINUTE = 60
_DAY = 86_400


class Channel(NamedTuple):
    """One way to tell somebody: what it is called where it fails, without its secrets, and how a message is sent."""

    name: str
    send: Send


class Channels:
    """Sends a message to all channels at once.

    Args:
        channels: whom to tell.
        patience: seconds that a channel may take, which are fewer than a lease has left: while a worker sends, no
            other does. What a channel does after that is its own affair; it gets no second message meanwhile.
    """

    def __init__(self, channels: Iterable[Channel], patience: float) -> None:
        self._channels = list(channels)
        self._patience = patience
        self._busy: dict[str, threading.Thread] = {}
        self._logged: dict[str, float] = {}

    def send(self, subject: str, text: str, storage: Storage, now: float) -> bool:
        """Whether a channel took the message; those that did not are named in the log, once a minute, and shown."""
        failed = failing_channels(storage)
        attempts = [self._begin(channel, subject, text) for channel in self._channels]
        until = time.monotonic() + self._patience
        has_arrived = False
        for attempt in attempts:
            reason = attempt.reason(max(0.0, until - time.monotonic()))
            name = attempt.channel.name
            has_arrived = has_arrived or reason is None
            if reason is not None:
                self._log(name, reason, now)
            last = failed.get(name)
            if (reason is not None) if last is None else (reason is None or now - last >= _DAY):
                self._record(AuditEntry(now, name, "", WORKS if reason is None else FAILED, _SUBJECT), storage)
        return has_arrived

    def _begin(self, channel: Channel, subject: str, text: str) -> _Attempt:
        busy = self._busy.get(channel.name)
        attempt = _Attempt(channel, subject, text)
        if busy is None or not busy.is_alive():
            # A daemon: a channel that hangs holds up no end of the process.
            thread = self._busy[channel.name] = threading.Thread(target=attempt.run, daemon=True)
            thread.start()
        return attempt

    def _record(self, entry: AuditEntry, storage: Storage) -> None:
        try:
            storage.record(entry)
        except StoreError as error:  # the message was sent all the same, and is not to be sent again for that
            _log.warning("that %s %s is not kept: %s", entry.who, ACTIONS[entry.action], error)

    def _log(self, name: str, reason: str, now: float) -> None:
        last = self._logged.get(name)
        if last is None or not 0 <= now - last < _MINUTE:
            self._logged[name] = now
            _log.error("%s did not take an alert: %s", name, one_line(reason))


class _Attempt:
    """One message to one channel."""

    def __init__(self, channel: Channel, subject: str, text: str) -> None:
        self.channel = channel
        self._message = subject, text
        self._done = threading.Event()
        self._error: str | None = None

    def run(self) -> None:
        try:
            self.channel.send(*self._message)
        except Exception as error:  # noqa: BLE001 - a channel may be anybody's code, and the others are to be told
            self._error = str(error) or repr(error)
        self._done.set()

    def reason(self, seconds: float) -> str | None:
        """Why it has not arrived within this time; None where it has."""
        return self._error if self._done.wait(seconds) else "it has not answered in time"


def failing_channels(storage: Storage) -> dict[str, float]:
    """The channels that took no alert when they were told last, and since when that is known."""
    failed: dict[str, float] = {}
    for entry in reversed(storage.audit(_SUBJECT, _MOST_CHANNELS)):
        failed.pop(entry.who, None)
        if entry.action == FAILED:
            failed[entry.who] = entry.at
    return failed


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
