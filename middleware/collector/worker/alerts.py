"""Alerts: a message on a new group and on a sudden rise, never too many; and a digest of a day or a week."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Literal, Protocol

from ..formatting import several
from ..storage import HOUR, Filter, Group, Rise, Storage
from ..triage import SEVERITIES, VERDICTS

__all__ = ["Alerts", "Send", "apprise"]

# Sends one message, given its subject and its text.
Send = Callable[[str, str], None]
Digest = Literal["daily", "weekly"]

_log = logging.getLogger("dynpin.collector")
_DAY = 86_400
_PERIODS: dict[Digest, int] = {"daily": _DAY, "weekly": 7 * _DAY}
_LISTED = 10
_RANKS = {severity: rank for rank, severity in enumerate(SEVERITIES)}


class Alerts:
    """Tells somebody of new groups and sudden rises.

    What comes together is one message. A group is told of once, and again when it rises or comes back after it was
    resolved, at most once a day.

    Args:
        send: takes a subject and a text; :func:`apprise` makes one for its many channels.
        every: seconds between two messages at least; what happens in between waits for the next.
        rise: how many times as many reports in an hour as on average in the day before are a sudden rise.
        rise_at_least: and at least so many.
        digest: ``"daily"`` or ``"weekly"`` for a summary, or None.
        url: where the collector's pages are, for links.
    """

    def __init__(
        self,
        send: Send,
        *,
        every: float = 600,
        rise: float = 5,
        rise_at_least: int = 50,
        digest: Digest | None = None,
        url: str = "",
    ) -> None:
        self._send = send
        self.every = every
        self.rise = rise
        self.rise_at_least = rise_at_least
        self.digest: Digest | None = digest
        self.url = url.rstrip("/")

    def tell(self, storage: Storage, now: float) -> bool:
        """Send what is to be told at this time; whether something was sent."""
        last = storage.fact("alerted_at")
        if last is not None and 0 <= now - last < self.every:
            return False
        new = storage.unannounced(500)
        rises = [
            rise
            for rise in storage.rising(int(now // HOUR), self.rise, self.rise_at_least)
            if rise.announced_at is not None and now - rise.announced_at >= _DAY
        ]
        sent = bool(new or rises) and self._message(storage, now, new, rises)
        return self._send_digest(storage, now) or sent

    def _message(self, storage: Storage, now: float, new: list[Group], rises: list[Rise]) -> bool:
        new.sort(key=lambda group: _RANKS.get(group.severity or "", _RANKS["unclear"]))
        lines = [
            f"{'Resolved, and here again: ' if rise.group.state == 'resolved' else ''}"
            f"{several(rise.reports, 'report')} this hour, {rise.before:.0f} before: {self._line(rise.group)}"
            for rise in rises
        ]
        lines += [f"New: {self._line(group)}" for group in new]
        if not self._sent(_subject(new, rises), _listed(lines)):
            return False
        storage.set_fact("alerted_at", now)
        storage.announce([*new, *(rise.group for rise in rises)], now)
        return True

    def _send_digest(self, storage: Storage, now: float) -> bool:
        if self.digest is None:
            return False
        last = storage.fact("digest_at")
        if last is None:
            storage.set_fact("digest_at", now)
            return False
        period = _PERIODS[self.digest]
        if now - last < period:
            return False
        activity = storage.activity(Filter(), int(last // HOUR), int(now // HOUR) + 1)
        seen = Filter(since=f"{period // HOUR}h")
        lines = [f"{several(sum(reports for _, _, reports in activity), 'report')} since the last digest."]
        lines += [
            f"{reports:>7} in {several(groups, 'group')}: {_title(verdict)}"
            for verdict, groups, reports in storage.tally(seen, "verdict", 20)
        ]
        lines += [f"{reports:>7} about {host}" for host, _, reports in storage.tally(seen, "host", 10)]
        if not self._sent(f"dynpin: {self.digest} digest", "\n".join(lines)):
            return False
        storage.set_fact("digest_at", now)
        return True

    def _sent(self, subject: str, text: str) -> bool:
        try:
            self._send(subject, text)
        except (OSError, RuntimeError, ValueError) as error:
            # The next batch tries again; the reports are on the pages all the same.
            _log.error("an alert could not be sent: %s", error)
            return False
        return True

    def _line(self, group: Group) -> str:
        link = f" {self.url}/groups/{group.key}" if self.url else ""
        number = several(group.reports, "report")
        return f"{_one_line(group.host)} ({group.mode}): {_title(group.verdict or '')}, {number}{link}"


def _subject(new: list[Group], rises: list[Rise]) -> str:
    attacks = sum(group.severity == "attack" for group in new)
    parts = [(attacks, "possible attack"), (len(new), "new group"), (len(rises), "sudden rise")]
    return "dynpin: " + ", ".join(several(number, thing) for number, thing in parts if number)


def _listed(lines: list[str]) -> str:
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return "\n".join(lines[:_LISTED] + more)


def _title(verdict: str) -> str:
    return VERDICTS[verdict].title if verdict in VERDICTS else "not judged yet"


def _one_line(text: str) -> str:
    # A host name in a report is hostile text: no line of its own, and not without end.
    return "".join(character if character.isprintable() else "?" for character in text)[:80]


class _Channels(Protocol):
    """What is used of Apprise, whose own types are not complete."""

    def add(self, services: str) -> bool: ...
    def notify(self, body: str, title: str) -> object: ...


def apprise(urls: Iterable[str]) -> Send:
    """Send by Apprise: mail, webhooks, Slack, Matrix, ntfy and many more, each by a URL of its own form.

    Raises:
        ModuleNotFoundError: where Apprise is missing; the message names the extra.
        ValueError: for a URL that Apprise cannot use.
    """
    channels = _channels()
    for url in urls:
        if not channels.add(url):
            raise ValueError(f"Apprise knows no channel like {url.partition('://')[0]}://…; see its list of services")

    def send(subject: str, text: str) -> None:
        if not channels.notify(text, subject):
            raise RuntimeError("no channel took the message")

    return send


def _channels() -> _Channels:
    try:
        from apprise import Apprise  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('alerts need apprise: pip install "dynpin[alerts]"', name=error.name) from error
    return Apprise()
