"""Alerts: a message on a new group and on a sudden rise, never too many; and a digest of a day or a week.

A message is sent first, and then the storage learns that it was: an alert of an attack that comes twice does less harm
than one that never comes. Twice it comes where a worker is killed in between, or cannot write down that it sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from ..formatting import several
from ..storage import HOUR, Filter, Group, Rise, Storage
from ..triage import SEVERITIES, VERDICTS
from .channels import Channel, Channels, Send

__all__ = ["Alerts", "plain"]

Digest = Literal["daily", "weekly"]

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
        patience: seconds that a channel may take; one that takes longer has failed.
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
        patience: float = 15,
    ) -> None:
        self._channels = Channels([Channel("the alert channel", send)] if callable(send) else send, patience)
        self._sent_at: float | None = None
        self._failed_at: float | None = None
        self.every = every
        self.rise = rise
        self.rise_at_least = rise_at_least
        self.digest: Digest | None = digest
        self.url = url.rstrip("/")

    def tell(self, storage: Storage, now: float) -> bool:
        """Send what is to be told at this time; whether something was sent."""
        # What this worker sent counts too where the storage could not be told of it.
        last = storage.fact("alerted_at"), self._sent_at
        if any(_is_within(self.every, before, now) for before in last) or _is_within(_MINUTE, self._failed_at, now):
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
        if not self._send(_subject(new, rises), _listed(lines), storage, now):
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
        if not self._send(f"dynpin: {self.digest} digest", "\n".join(lines), storage, now):
            return False
        storage.set_fact("digest_at", now)
        return True

    def _send(self, subject: str, text: str, storage: Storage, now: float) -> bool:
        if self._channels.send(subject, text, storage, now):
            self._sent_at, self._failed_at = now, None
        else:
            self._failed_at = now  # the reports are on the pages all the same
        return self._failed_at is None

    def _line(self, group: Group) -> str:
        link = f" {self.url}/groups/{group.key}" if self.url else ""
        number = several(group.reports, "report")
        return f"{plain(group.host)} ({group.mode}): {_title(group.verdict or '')}, {number}{link}"


def _is_within(seconds: float, before: float | None, now: float) -> bool:
    return before is not None and 0 <= now - before < seconds


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
