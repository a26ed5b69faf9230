"""The user agents that play in the lab: dynpin itself, models of two browsers, and a foreign program."""

from __future__ import annotations

from collections.abc import Mapping

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
    )
}
