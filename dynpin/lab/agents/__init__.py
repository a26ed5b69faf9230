"""The user agents that play in the lab: dynpin itself, models of two browsers, and a foreign program."""

from __future__ import annotations

from collections.abc import Mapping

from dynpin.lab.agents import wget2
from dynpin.lab.agents.agent import Agent, Machine, Sent, Settings, UserAgent, Visit
from dynpin.lab.agents.chromium import ChromiumAgent
from dynpin.lab.agents.firefox import FirefoxAgent
from dynpin.lab.agents.library import DynpinAgent

__all__ = ["AGENTS", "Agent", "Machine", "Sent", "Settings", "UserAgent", "Visit"]

AGENTS: Mapping[str, Agent] = {
    agent.name: agent
    for agent in (
        Agent(
            "dynpin",
            "dynpin",
            "RFC 7469 to the letter, and its choices: private roots are held to the pins too; a flood evicts nothing.",
            DynpinAgent,
        ),
        Agent(
            "chromium",
            "Chromium 71 (model)",
            "Reads headers leniently; skips chains that end in a root of the user's; ignores a bare max-age=0.",
            ChromiumAgent,
        ),
        Agent(
            "firefox",
            "Firefox 71 (model)",
            "Skips the user's roots too; 1024 entries, the least used are driven out; written late; no reports.",
            FirefoxAgent,
        ),
        Agent(
            "wget2",
            "wget2 (the real program)",
            "Notes any pins, in its chain or not, without a Backup Pin too; a malformed header unpins; no report.",
            wget2.Wget2Agent,
            wget2.missing,
        ),
    )
}
