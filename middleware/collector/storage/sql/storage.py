"""The storage on either engine: each method is a function of this room, in a unit of work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..values import Arrival, Counted, Pruned, Retention
from . import access, alerts, counts, decisions, lists, work
from .engine import Engine, Unit, reads, writes
from .pruning import prune
from .texts import storable, storable_arrivals

__all__ = ["SQLStorage"]


class SQLStorage:
    """The collector's reports in a database that threads, processes and machines share safely.

    Args:
        engine: the database.
        clock: seconds since the epoch, UTC; filters such as ``since=7d`` count from it.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self.engine = engine
        self.clock = clock

    @property
    def name(self) -> str:
        """The name for people: the path of the file, or the server's address without the password."""
        return self.engine.name

    @property
    def path(self) -> Path | None:
        """The path of the file, or None if the storage is a server."""
        return self.engine.path

    @contextmanager
    def reading(self) -> Generator[Unit]:
        """A connection that nobody else uses at the same time."""
        with self.engine.reading() as db:
            yield Unit(db, self.clock(), self.engine)

    @contextmanager
    def writing(self) -> Generator[Unit]:
        """A transaction. Its changes survive a loss of power when it has ended."""
        with self.engine.writing() as db:
            yield Unit(db, self.clock(), self.engine)

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int]) -> bool:
        """Store reports and counts in one transaction; see :class:`~dynpin.middleware.collector.storage.Sink`."""
        counts: Counter[Counted] = Counter()
        for counted, number in outcomes.items():
            counts[counted._replace(token=storable(counted.token), reason=storable(counted.reason))] += number
        return self.engine.add(storable_arrivals(arrivals), counts, self.clock())

    def probe(self, patience: float) -> None:
        """Write something durably; wait for a lock for `patience` seconds at most."""
        self.engine.probe(self.clock(), patience)

    def prune(self, retention: Retention) -> Pruned:
        """Delete what the retention does not keep, in small transactions."""
        return prune(self.engine, retention, self.clock())

    def close(self) -> None:
        """Close every connection; the storage opens new ones when it is used again."""
        self.engine.close()

    reports = reads(lists.reports)
    groups = reads(lists.groups)
    group = reads(lists.group)
    activity = reads(counts.activity)
    tally = reads(counts.tally)
    agents = reads(counts.agents)
    outcomes = reads(counts.outcomes)
    accepted = reads(counts.accepted)

    untriaged = reads(work.untriaged)
    authorities = reads(work.authorities)
    set_verdicts = writes(work.set_verdicts)
    claim = writes(work.claim)
    release = writes(work.release)
    unannounced = reads(alerts.unannounced)
    rising = reads(alerts.rising)
    announce = writes(alerts.announce)
    pending_alerts = reads(alerts.pending_alerts)
    channels = reads(alerts.channels)
    note_channel = writes(alerts.note_channel)
    keep_channels = writes(alerts.keep_channels)
    fact = reads(work.fact)
    set_fact = writes(work.set_fact)

    set_state = writes(decisions.set_state)
    record = writes(decisions.record)
    audit = reads(decisions.audit)
    shared_time = reads(decisions.shared_time)
    site_state = reads(decisions.site_state)
    set_site_state = writes(decisions.set_site_state)
    tokens = reads(decisions.tokens)
    add_token = writes(decisions.add_token)
    revoke_token = writes(decisions.revoke_token)
    name_tokens = writes(decisions.name_tokens)
    named_tokens = reads(decisions.named_tokens)

    add_api_token = writes(access.add_api_token)
    api_token = reads(access.api_token)
    api_tokens = reads(access.api_tokens)
    use_api_token = writes(access.use_api_token)
    revoke_api_token = writes(access.revoke_api_token)
    add_session = writes(access.add_session)
    session = reads(access.session)
    end_session = writes(access.end_session)
    secret = reads(access.secret)
