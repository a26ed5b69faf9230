"""The tasks of an agent, and its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dynpin.pins import Pin

__all__ = ["Answer", "Task", "do"]


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


def do(
    task: Task,
    *,
    visit: Callable[[], Answer],
    forget: Callable[[str], object],
    preload: Callable[[str, list[Pin]], object],
) -> Answer:
    """Do a task by what the client can do; ``age`` is unsupported, since such a client takes the time from its task."""
    match task.do:
        case "visit":
            return visit()
        case "forget":
            forget(task.host)
        case "preload":
            preload(task.host, [Pin.from_base64(pin) for pin in task.pins])
        case _:
            return Answer("unsupported", f"no {task.do}")
    return Answer("done")
