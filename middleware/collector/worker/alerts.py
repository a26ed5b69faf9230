"""Alerts: a message on a new group and on a sudden rise, never too many; and a digest of a day or a week."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, Protocol

from ..formatting import one_line, several
from ..storage import HOUR, Filter, Group, Rise, Storage
from ..triage import SEVERITIES, VERDICTS

__all__ = ["Alerts", "Channel", "Send", "apprise", "plain"]

# Sends one message, given its subject and its text.
Send = Callable[[str, str], None]


class Channel(NamedTuple):
    """One way to tell somebody: what it is called where it fails, without its secrets, and how a message is sent."""

    name: str
    send: Send


Digest = Literal["daily", "weekly"]

_log = logging.getLogger("dynpin.collector")
_DAY = 86_400
_PERIODS: dict[Digest, int] = {"daily": _DAY, "weekly": 7 * _DAY}
_LISTED = 10
_MINUTE = 60
# All of a name that reads as itself in the markup of chat and mail: no mention, no link text, no emphasis, no HTML.
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_RANKS = {severity: rank for rank, severity in enumerate(SEVERITIES)}


class Alerts:
    """Tells somebody of new groups and sudden rises.

    What comes together is one message. A group is told of once, and again when it rises or comes back after it was
    resolved, at most once a day.

    Args:
        send: takes a subject and a text; or several channels, such as :func:`apprise` makes.
        every: seconds between two messages at least; what happens in between waits for the next.
        rise: how many times as many reports in an hour as on average in the day before are a sudden rise.
        rise_at_least: and at least so many.
        digest: ``"daily"`` or ``"weekly"`` for a summary, or None.
        url: where the collector's pages are, for links.
    """

    def __init__(
        self,
        send: Send | Iterable[Channel],
        *,
        every: float = 600,
        rise: float = 5,
        rise_at_least: int = 50,
        digest: Digest | None = None,
        url: str = "",
    ) -> None:
        self._channels = [Channel("the alert channel", send)] if callable(send) else list(send)
        self._logged: dict[str, float] = {}
        self._failed_at: float | None = None
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
        if self._failed_at is not None and 0 <= now - self._failed_at < _MINUTE:
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
        if not self._sent(_subject(new, rises), _listed(lines), now):
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
        lines += [f"{reports:>7} about {plain(host)}" for host, _, reports in storage.tally(seen, "host", 10)]
        if not self._sent(f"dynpin: {self.digest} digest", "\n".join(lines), now):
            return False
        storage.set_fact("digest_at", now)
        return True

    def _sent(self, subject: str, text: str, now: float) -> bool:
        """Whether a channel took the message; those that did not are named, once a minute."""
        sent = False
        for channel in self._channels:
            try:
                channel.send(subject, text)
                sent = True
            except Exception as error:  # noqa: BLE001 - a channel may be anybody's code, and the others are to be told
                logged_at = self._logged.get(channel.name)
                if logged_at is None or not 0 <= now - logged_at < _MINUTE:
                    self._logged[channel.name] = now
                    _log.error("%s did not take an alert: %s", channel.name, one_line(str(error) or repr(error)))
        # The reports are on the pages all the same.
        self._failed_at = None if sent else now
        return sent

    def _line(self, group: Group) -> str:
        link = f" {self.url}/groups/{group.key}" if self.url else ""
        number = several(group.reports, "report")
        return f"{plain(group.host)} ({group.mode}): {_title(group.verdict or '')}, {number}{link}"


def _subject(new: list[Group], rises: list[Rise]) -> str:
    attacks = sum(group.severity == "attack" for group in new)
    parts = [(attacks, "possible attack"), (len(new), "new group"), (len(rises), "sudden rise")]
    return "dynpin: " + ", ".join(several(number, thing) for number, thing in parts if number)


def _listed(lines: list[str]) -> str:
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return "\n".join(lines[:_LISTED] + more)


def _title(verdict: str) -> str:
    return VERDICTS[verdict].title if verdict in VERDICTS else "not judged yet"


def plain(host: str) -> str:
    """A name from a report, which is hostile text, as it may stand in anybody's markup; and not without end."""
    return _NOT_PLAIN.sub("?", host[:80])


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
