"""The tasks of an agent, and its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Answer", "Task"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One task. Its members are those of a resident agent's line of JSON."""

    do: Literal["visit", "forget", "preload", "age"]
    url: str = ""
    host: str = ""
    store: str
    ca: str
    now: float
    ahead: int = 0
    seconds: int = 0
    pins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """An agent's result of a task; ``done`` for a task that is not a visit."""

    outcome: Literal["served", "refused", "failed", "done", "unsupported"]
    detail: str = ""
