"""The user agents of the lab: dynpin itself, models of two browsers, and a foreign program."""

from __future__ import annotations

from collections.abc import Mapping

from dynpin.lab.agents import wget2
from dynpin.lab.agents.agent import Agent, Machine, Sent, Settings, UserAgent, Visit
from dynpin.lab.agents.chromium import ChromiumAgent
from dynpin.lab.agents.firefox import FirefoxAgent
from dynpin.lab.agents.library import DynpinAgent
from dynpin.lab.claims import CLAIMS, Claim

__all__ = ["AGENTS", "Agent", "Machine", "Sent", "Settings", "UserAgent", "Visit"]


def _claims(*names: str) -> tuple[Claim, ...]:
    return tuple(CLAIMS[name] for name in names)


AGENTS: Mapping[str, Agent] = {
    agent.name: agent
    for agent in (
        Agent(
            "dynpin",
            "dynpin",
            _claims("dynpin-all-roots", "dynpin-static-first", "dynpin-zero", "dynpin-bound"),
            DynpinAgent,
            frozenset(
                {"private", "partition", "on_clock_jump", "max_hosts_per_domain"}
                | {"private_roots", "reports", "recovery", "follows"}
            ),
        ),
        Agent(
            "chromium",
            "Chromium 71 (model)",
            _claims(
                *("chromium-user-roots", "chromium-noted-first", "chromium-zero", "chromium-nearest"),
                *("chromium-lenient", "chromium-deletes", "chromium-reports", "chromium-incognito"),
                *("chromium-static", "chromium-cap"),
            ),
            ChromiumAgent,
            frozenset({"private"}),
        ),
        Agent(
            "firefox",
            "Firefox 71 (model)",
            _claims(
                *("firefox-user-roots", "firefox-noted-first", "firefox-1024", "firefox-late"),
                *("firefox-no-reports", "firefox-private", "firefox-static", "firefox-cap", "firefox-why-not"),
            ),
            FirefoxAgent,
            frozenset({"private"}),
        ),
        Agent(
            "wget2",
            "wget2 (the real program)",
            _claims(
                *("wget2-any", "wget2-served", "wget2-no-cap", "wget2-unpins", "wget2-nearest", "wget2-one-file"),
                "wget2-no-reports",
            ),
            wget2.Wget2Agent,
            missing=wget2.missing,
        ),
    )
}
