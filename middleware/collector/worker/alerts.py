"""Alerts: messages on new groups and sudden rises, with a limit; and a digest of a day or a week.

The storage has a list for each channel of what it must still be told. A message is sent first, and then the storage
is told. If a worker is killed in between, the message is sent twice: this does less harm than an alert of an attack
that never comes.
"""

from __future__ import annotations

import queue
import re
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from dynpin.counts import counted
from dynpin.report import rfc3339

from ..storage import HOUR, ChannelNote, Filter, Group, PendingAlert, Storage, Term
from ..triage import SEVERITIES, VERDICTS
from .channels import Channel, Line, Message, Send

__all__ = ["Alerts", "plain"]

Digest = Literal["daily", "weekly"]

_DAY = 86_400
_PERIODS: dict[Digest, int] = {"daily": _DAY, "weekly": 7 * _DAY}
_LISTED = 10
# How long one call waits for its messages (seconds). The result of a slower message is stored by a later call.
_WAIT_S = 2.0
# The characters of a name that are safe in the markup of chats and mail: no mention, no link, no emphasis, no HTML.
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_RANKS = {severity: rank for rank, severity in enumerate(SEVERITIES)}


class Alerts:
    """Sends messages on new groups and sudden rises.

    Events at the same time share a message. A group is announced once. It is announced again, at most once a day,
    when it rises, or comes back after it was resolved.

    Args:
        send: a function that takes a subject and a text; or several channels, see :func:`apprise`.
        every: the shortest time between two messages to a channel, in seconds; later events wait for the next message.
        rise: an hour with so many times the reports of an average hour of the day before is a sudden rise.
        rise_at_least: the fewest reports of a sudden rise.
        digest: ``"daily"`` or ``"weekly"`` for a summary, or None.
        url: the address of the collector's pages, for links.
        patience: how long a channel may take, in seconds; a slower one is shown as failing until it answers.
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
        channels = [Channel("the alert channel", send)] if callable(send) else list(send)
        self._lines = {channel.name: Line(channel, patience) for channel in channels}
        self._finished: queue.Queue[Line] = queue.Queue()
        self._wait = min(_WAIT_S, patience)
        self._is_begun = False
        self.every = every
        self.rise = rise
        self.rise_at_least = rise_at_least
        self.digest: Digest | None = digest
        self.url = url.rstrip("/")

    def tell(self, storage: Storage, now: float) -> bool:
        """Send the messages that are due at `now`. True if a channel took one."""
        if not self._is_begun:
            storage.keep_channels(list(self._lines))
            self._is_begun = True
        self._hand_over(storage, now)
        has_arrived = self._end_finished(storage, now, 0)
        notes, begun = self._notes(storage), 0
        for name, line in self._lines.items():
            if self.digest is not None and notes[name].digest_at is None:
                notes[name] = replace(notes[name], digest_at=now)  # the first digest covers the time from now on
                storage.note_channel(notes[name])
            line.look(storage, notes[name], now)
            if line.is_free(now) and not _is_within(self.every, notes[name].sent_at, now):
                message = self._message(storage, name) or self._digest(storage, notes[name], now)
                if message is not None:
                    line.begin(message, now, self._finished)
                    begun += 1
        has_arrived = self._end_finished(storage, now, begun) or has_arrived
        notes = self._notes(storage)
        for name, line in self._lines.items():
            line.look(storage, notes[name], now)
        return has_arrived

    def _hand_over(self, storage: Storage, now: float) -> None:
        """Put new groups and rises into the list of each channel."""
        new = storage.unannounced(500)
        rises = [
            rise
            for rise in storage.rising(int(now // HOUR), self.rise, self.rise_at_least)
            if rise.announced_at is not None and not _is_within(_DAY, rise.announced_at, now)
        ]
        pending = [
            *(PendingAlert(group) for group in new),
            *(PendingAlert(rise.group, rise.reports, rise.before) for rise in rises),
        ]
        if pending:
            storage.announce(list(self._lines), pending, now)

    def _end_finished(self, storage: Storage, now: float, awaited: int) -> bool:
        """Store the results of messages: wait some seconds for `awaited` of them, then take all that have ended."""
        until, has_arrived = time.monotonic() + self._wait, False
        while True:
            try:
                line = self._finished.get(timeout=max(0.0, until - time.monotonic()) if awaited > 0 else 0)
            except queue.Empty:
                return has_arrived
            awaited -= 1
            try:
                has_arrived = line.end(storage, self._notes(storage)[line.name], now) or has_arrived
            except BaseException:
                self._finished.put(line)  # it was sent: the next call stores that, and does not send it again
                raise

    def _notes(self, storage: Storage) -> dict[str, ChannelNote]:
        return {name: ChannelNote(name) for name in self._lines} | {note.name: note for note in storage.channels()}

    def _message(self, storage: Storage, channel: str) -> Message | None:
        pending = storage.pending_alerts(channel, 500)
        if not pending:
            return None
        pending.sort(key=lambda each: _RANKS.get(each.group.severity or "", _RANKS["unclear"]))
        lines = [
            f"{'Resolved, and back again: ' if each.group.state == 'resolved' else ''}"
            f"{counted(each.reports, 'report')} this hour, {each.before or 0:.0f} before: {self._line(each.group)}"
            for each in pending
            if each.reports is not None
        ]
        lines += [f"New: {self._line(each.group)}" for each in pending if each.reports is None]
        return Message(_subject(pending), _listed(lines), [each.group for each in pending])

    def _digest(self, storage: Storage, note: ChannelNote, now: float) -> Message | None:
        if self.digest is None or note.digest_at is None:
            return None
        period = _PERIODS[self.digest]
        if _is_within(period, note.digest_at, now):
            return None
        # A clock that was ahead has left a time in the future.
        since = note.digest_at if note.digest_at <= now else now - period
        # Whole hours, as they are counted. So no report is in two digests, and one of this hour is in the next digest.
        first, last = int(since // HOUR), int(now // HOUR)

        def reports(*terms: Term) -> int:
            return sum(number for _, _, number in storage.activity(Filter(terms), first, last))

        # The numbers of a tally are of all time.
        seen = Filter(since=rfc3339(first * HOUR))
        verdicts = [
            (reports(Term("verdict", verdict or "none")), f"in {counted(groups, 'group')}: {_title(verdict)}")
            for verdict, groups, _ in storage.tally(seen, "verdict", 20)
        ]
        hosts = [
            (reports(Term("host", host)), f"about {plain(host)}") for host, _, _ in storage.tally(seen, "host", 50)
        ]
        lines = [f"{counted(reports(), 'report')} since the last digest."]
        for counts in (verdicts, hosts):
            most = sorted((each for each in counts if each[0]), reverse=True)[:_LISTED]
            lines += [f"{number:>7} {text}" for number, text in most]
        return Message(f"dynpin: {self.digest} digest", "\n".join(lines), digest_at=now)

    def _line(self, group: Group) -> str:
        link = f" {self.url}/groups/{group.key}" if self.url else ""
        number = counted(group.reports, "report")
        return f"{plain(group.host)} ({group.mode}): {_title(group.verdict or '')}, {number}{link}"


def _is_within(seconds: float, before: float | None, now: float) -> bool:
    return before is not None and 0 <= now - before < seconds


def _subject(pending: list[PendingAlert]) -> str:
    new = [each.group for each in pending if each.reports is None]
    attacks = sum(group.severity == "attack" for group in new)
    parts = [(attacks, "possible attack"), (len(new), "new group"), (len(pending) - len(new), "sudden rise")]
    return "dynpin: " + ", ".join(counted(number, thing) for number, thing in parts if number)


def _listed(lines: list[str]) -> str:
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return "\n".join(lines[:_LISTED] + more)


def _title(verdict: str) -> str:
    return VERDICTS[verdict].title if verdict in VERDICTS else "not judged yet"


def plain(host: str) -> str:
    """A name from a report, which is a stranger's text, made safe for any markup, and cut if it is too long."""
    return _NOT_PLAIN.sub("?", host[:80])
