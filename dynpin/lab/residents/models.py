"""The models of the browsers, as agents that stay. Their scores are those of the models, read in the sources."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

from dynpin.lab.agents import AGENTS, Machine, UserAgent
from dynpin.lab.residents.task import Answer, Task, do

__all__ = ["Model"]


class Model:
    """A model with a store for each rule.

    Args:
        name: of the agent in the lab.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._store = ""
        self._now = 0.0
        self._network: dict[str, int] = {}
        self._agent: UserAgent | None = None

    def __call__(self, task: Task) -> Answer:
        """Do a task."""
        self._now = task.now
        if self._agent is None or task.store != self._store:
            self.close()
            self._network.clear()
            folder = Path(task.store)
            folder.mkdir(exist_ok=True)
            roots = _roots(task.ca)
            machine = Machine(folder=folder, public_roots=roots, clock=lambda: self._now, network=self._network)
            self._store, self._agent = task.store, AGENTS[self._name].install(machine)
        agent = self._agent
        return do(task, visit=lambda: self._visit(agent, task), forget=agent.forget, preload=agent.preload)

    def close(self) -> None:
        """End the agent; its files remain."""
        if self._agent is not None:
            self._agent.close()
            self._agent = None

    def _visit(self, agent: UserAgent, task: Task) -> Answer:
        place = urlsplit(task.url)
        host = place.hostname or ""
        if place.scheme != "https" or not host.endswith(".test"):
            return Answer("unsupported", "the model visits only names, and only by https")
        # The network map leads a model to the port.
        self._network[host] = place.port or 443
        visit = agent.visit(host, secret="")
        agent.report_at_once()
        agent.send_reports()
        if visit.status is not None:
            return Answer("served")
        if visit.refusal is not None:
            return Answer("refused", visit.refusal)
        detail = visit.failure or ""
        return Answer("refused" if "certificate verify failed" in detail else "failed", detail)


def _roots(file: str) -> list[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(file)
    return context.get_ca_certs(binary_form=True)
