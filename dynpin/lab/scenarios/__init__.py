"""The scenarios: how pinning succeeded and failed. Each has a file that reads like its story.

Most scenarios are based on a real event, on a published demonstration, or on a description in RFC 7469. The others
follow from its rules, and the last three are about dynpin's own recovery. Each file names its sources.

The stories are written with the classes of :mod:`dynpin.lab.stage`. A file registers its story with :func:`scenario`.
Call :func:`scenarios` to get them all.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from dynpin.lab.agents import AGENTS
from dynpin.lab.claims import CLAIMS, Claim
from dynpin.lab.stage import Stage, set_stage
from dynpin.lab.timeline import Timeline
from dynpin.lab.with_recovery import EndedWithRecoveryError

__all__ = ["EVERY_AGENT", "Scenario", "play", "scenario", "scenarios"]

EVERY_AGENT = ("dynpin", "chromium", "firefox", "wget2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One story.

    Attributes:
        number: its place in the list.
        name: its name in the command, such as ``"smashing-magazine"``.
        title: for people.
        story: what happens, in two or three sentences for a reader without prior knowledge.
        rfc: what RFC 7469 says, with sections.
        browsers: what browsers and wget2 do, each with its source.
        dynpin: what dynpin does about it.
        sources: the public facts behind it: who, when.
        agents: the user agents that can play it, by name.
        recovery: ``"heals"``: with recovery its first lock-out ends within a minute, or it has none; ``"cannot"``: that
            lock-out does not end, and `dynpin` says so; ``"told"``: it is about recovery, and has no second ending.
        act: plays it on an empty stage.
    """

    number: int
    name: str
    title: str
    story: str
    rfc: str
    browsers: tuple[Claim, ...]
    dynpin: str
    sources: tuple[str, ...]
    agents: tuple[str, ...]
    recovery: Literal["heals", "cannot", "told"]
    act: Callable[[Stage], None]


_registered: dict[str, Scenario] = {}


def scenario(
    *,
    number: int,
    name: str,
    title: str,
    story: str,
    rfc: str,
    browsers: tuple[str, ...] = (),
    dynpin: str,
    sources: tuple[str, ...] = (),
    agents: tuple[str, ...] = EVERY_AGENT,
    recovery: Literal["heals", "cannot", "told"] = "heals",
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Register a function as a scenario. The arguments are those of :class:`Scenario`, with claims by their names."""

    def register(act: Callable[[Stage], None]) -> Callable[[Stage], None]:
        _registered[name] = Scenario(
            number=number,
            name=name,
            title=title,
            story=story,
            rfc=rfc,
            browsers=tuple(CLAIMS[each] for each in browsers),
            dynpin=dynpin,
            sources=sources,
            agents=agents,
            recovery=recovery,
            act=act,
        )
        return act

    return register


def scenarios() -> Mapping[str, Scenario]:
    """All scenarios by name, in the order of their numbers."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_registered.items(), key=lambda item: item[1].number))


def play(scenario: Scenario, agent: str, *, recovery: bool = False) -> Timeline:
    """Play a scenario with a user agent, and return the record.

    Args:
        scenario: the scenario.
        agent: the user agent's name.
        recovery: whether to play its second ending (:mod:`dynpin.lab.with_recovery`).

    Raises:
        KeyError: if there is no such agent.
    """
    heals = scenario.recovery == "heals"
    with set_stage(scenario.name, AGENTS[agent], recovery=recovery, heals=heals) as stage:
        with contextlib.suppress(EndedWithRecoveryError):
            scenario.act(stage)
        return stage.timeline
