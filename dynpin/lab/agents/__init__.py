"""The user agents that play in the lab: dynpin itself, models of two browsers, and a foreign program."""

from __future__ import annotations

from collections.abc import Mapping

from dynpin.lab.agents import wget2
from dynpin.lab.agents.agent import Agent, Machine, Settings, UserAgent, Visit
from dynpin.lab.agents.library import DynpinAgent

__all__ = ["AGENTS", "Agent", "Machine", "Settings", "UserAgent", "Visit"]

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
            "wget2",
            "wget2 (the real program)",
            "Notes any pins, in its chain or not, without a Backup Pin too; a malformed header unpins; no report.",
            wget2.Wget2Agent,
            wget2.missing,
        ),
    )
}
