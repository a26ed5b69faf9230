"""A study: the clients, the policies and the events, read from TOML or made in code."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dynpin.durations import duration
from dynpin.errors import InvalidStudy
from dynpin.lab.simulation.calendar import Attack, Compromise, Event, read_events
from dynpin.lab.simulation.population import PRESETS, Population, read_population
from dynpin.lab.simulation.recovery import Recovery, read_recovery
from dynpin.lab.simulation.risks import Risks, read_risks
from dynpin.lab.simulation.site_policy import SitePolicy, read_policy
from dynpin.lab.simulation.study_table import DAY, Table
from dynpin.middleware.policy import read_file
from dynpin.noting import DEFAULT_MAX_MAX_AGE

__all__ = ["EXAMPLE", "Study", "read_study", "study_of"]

# More clients or policies than these are a typing error.
_MOST_CLIENTS = 10**9
_MOST_DAYS = 3_660

EXAMPLE = """\
# dynpin simulate study.toml --plot study.svg

days = 365
clients = 100_000
seed = 1
population = "website"          # or "staff", "devices", "build agents", or tables as below
client_cap = "60 days"          # the clients' cap on max-age (RFC 7469 §4.1)

# [[population]]
# share = 0.7
# every = "7 days"              # or per_day = 0.14
# rhythm = "random"             # or "regular", as programs are
# spread = 0.5                  # how much clients differ: standard deviation of the logarithm of their rate
# [[population]]
# share = 0.3
# traces = "visits.csv"         # columns client,second

[[policy]]
name = "60 days, 1 backup"
max_age = "60 days"
backups = 1

[[policy]]
name = "7 days, 1 backup"
max_age = "7 days"
backups = 1
ramp = [{ max_age = "5 minutes", lasts = "7 days" }]

[[policy]]
pin = "none"                    # or "key", "ca", "both"

[[event]]
kind = "attack"                 # rotation, loss, compromise, ca-change, attack, mistake, unpin
from = 90
until = 120
share = 0.2

[[event]]
kind = "loss"
day = 200
keys = "all"

# [recovery]                    # adds results with signed lists
# share = 1.0                   # of the clients, whose sites have one
# signed_after = "1 day"        # from the loss until the list is signed
# watch = "refused"             # or "followed": clients look daily too
"""


@dataclass(frozen=True)
class Study:
    """The input of a simulation.

    Attributes:
        population: the clients, and how often they visit.
        policies: the policies; each meets the same clients, visits and events.
        events: the calendar.
        clients: the number of clients.
        days: the number of days.
        seed: the same seed gives the same visits, whatever the number of processes.
        client_cap: the clients' cap on max-age, in seconds (RFC 7469 §4.1).
        least_step: the share of max-age by which a client's expiry must move to be written: 0 by RFC 7469's letter,
            0.01 as in dynpin's store.
        risks: the operator's own numbers, for advice.
        recovery: the signed lists of the sites; None to play only without them.
    """

    population: Population
    policies: tuple[SitePolicy, ...]
    events: tuple[Event, ...] = ()
    clients: int = 100_000
    days: float = 365
    seed: int = 1
    client_cap: int = DEFAULT_MAX_MAX_AGE
    least_step: float = 0.0
    risks: Risks = field(default_factory=Risks)
    recovery: Recovery | None = None

    def __post_init__(self) -> None:
        first = min((event.second for event in self.events if isinstance(event, Compromise)), default=None)
        for event in self.events:
            if isinstance(event, Attack) and event.shows == "stolen-key" and (first is None or event.second < first):
                raise InvalidStudy(
                    f'the attack from day {event.second / DAY:g} shows the "stolen-key": it needs a compromise, on '
                    "that day or before"
                )

    def held(self, policy: SitePolicy) -> int:
        """The max-age that clients keep for a policy, in seconds: its own, or their cap."""
        return min(policy.max_age, self.client_cap)

    def label(self, policy: SitePolicy) -> str:
        """A policy's name, with the clients' max-age if it is capped."""
        held = self.held(policy)
        return (
            policy.name
            if held == policy.max_age or policy.pinned == "none"
            else f"{policy.name} (held to {duration(held)})"
        )

    @property
    def horizon(self) -> int:
        """The length in seconds."""
        return round(self.days * DAY)


def read_study(path: Path, instead: Mapping[str, object] | None = None, *, advice: bool = False) -> Study:
    """Read a study. Paths in it are relative to its folder.

    Args:
        path: the file.
        instead: values that replace those at the top of the file.
        advice: whether it is read for advice, which needs no policy.

    Raises:
        InvalidStudy: for invalid values; the message names the table, the value and the fix.
        OSError: if the file cannot be read.
    """
    try:
        values = tomllib.loads(read_file(path).decode("utf-8-sig")) | dict(instead or {})
        return study_of(values, path.parent, advice=advice)
    except tomllib.TOMLDecodeError as error:
        raise InvalidStudy(f"{path} is not TOML: {error}") from None
    except UnicodeDecodeError:
        raise InvalidStudy(f"{path} is not UTF-8: save it as such") from None
    except InvalidStudy as error:
        raise InvalidStudy(f"{path}: {error}") from None


def study_of(values: object, folder: Path, *, advice: bool = False) -> Study:
    """The study in these tables. For advice it needs no policy.

    Raises:
        InvalidStudy: for invalid values, and traces that cannot be read.
    """
    known = ("days", "clients", "seed", "client_cap", "client", "population", "policy", "event", "risks", "recovery")
    top = Table("study", values, known)
    days = top.number("days", 365, least=1 / 24, most=_MOST_DAYS)
    policies = tuple(read_policy(number, each) for number, each in enumerate(top.tables("policy"), start=1))
    if not policies and not advice:
        raise InvalidStudy("a study needs a policy, headed [[policy]]")
    names = [policy.name for policy in policies]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidStudy(f"two policies are called {twice!r}: give each a name")
    cap = top.span("client_cap", "60 days")
    if cap < 1:
        raise top.wrong("client_cap", "a second or more")
    return Study(
        population=read_population(top.values.get("population", next(iter(PRESETS))), folder),
        policies=policies,
        events=tuple(
            event
            for number, each in enumerate(top.tables("event"), start=1)
            for event in read_events(number, each, round(days * DAY))
        ),
        clients=top.integer("clients", 100_000, least=1, most=_MOST_CLIENTS),
        days=days,
        seed=top.integer("seed", 1),
        client_cap=cap,
        least_step=0.01 if top.choice("client", ("rfc", "dynpin"), "rfc") == "dynpin" else 0.0,
        risks=read_risks(top.values.get("risks", {})),
        recovery=read_recovery(top.values["recovery"]) if "recovery" in top.values else None,
    )
