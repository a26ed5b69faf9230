"""The rules that an agent is tested with: data, read from ``data/rules.json``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "DATA",
    "LEVELS",
    "Forget",
    "Level",
    "Pass",
    "Preload",
    "Reports",
    "Restart",
    "Rule",
    "Rules",
    "Serve",
    "Unreached",
    "Visit",
    "rules",
]

# The data is for other projects too; its README.md and LICENSE are in the same folder.
DATA = Path(__file__).with_name("data")

# How strongly the RFC requires a rule, the strongest first.
Level = Literal["MUST", "SHOULD", "MAY"]
LEVELS: tuple[Level, ...] = ("MUST", "SHOULD", "MAY")
Host = Annotated[str, Field(description="A name below .test, or 127.0.0.1.")]
Chain = Annotated[
    str,
    Field(
        pattern=r"^[A-D](@(other-root|untrusted|expired|wrong-name)|\+[A-D])?$",
        description="The leaf key; @ names a defect of its certificate, + names an extra leaf that is sent along.",
    ),
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Serve(_Model):
    """From now on a host shows a chain and sends these header fields; the agent does nothing."""

    do: Literal["serve"]
    host: Host
    chain: Chain = "A"
    headers: tuple[tuple[str, str], ...] = ()


class Visit(_Model):
    """A host shows a chain and answers with these header fields; the agent requests ``/``.

    ``served`` means that the request reached the server, ``refused`` that none did.
    """

    do: Literal["visit"]
    host: Host
    chain: Chain = "A"
    headers: tuple[tuple[str, str], ...] = Field(
        default=(), description="{A} is the pin of key A, {http:HOST} and {url:HOST} a URL of that host."
    )
    scheme: Literal["https", "http"] = "https"
    port: Literal[1, 2] = Field(default=1, description="The first or second port of the host.")
    status: int = 200
    redirect: Host | None = Field(default=None, description="Answer with 302 to this host.")
    body: str = ""
    judge: Host | None = Field(
        default=None, description="The host whose server decides the outcome; by default the visited one."
    )
    resumed: bool = Field(
        default=False, description="The rule can be decided only if the agent offers its TLS session."
    )
    expect: Literal["served", "refused"]
    decides: bool = Field(
        default=False, description="Another outcome breaks the rule; otherwise it makes the rule not testable."
    )


class Pass(_Model):
    """Time passes for the agent."""

    do: Literal["pass"]
    seconds: int


class Forget(_Model):
    """The user makes the agent forget a host."""

    do: Literal["forget"]
    host: Host


class Preload(_Model):
    """The agent gets static pins for a host."""

    do: Literal["preload"]
    host: Host
    pins: tuple[Literal["A", "B", "C", "D", "I", "R", "X"], ...]


class Restart(_Model):
    """The agent's process ends, and another one starts."""

    do: Literal["restart"]


class Reports(_Model):
    """How many violation reports have arrived at ``http://reports.test``."""

    do: Literal["reports"]
    expect: int
    members: bool = Field(default=False, description="Each has the members of RFC 7469 §3.")
    decides: bool = Field(
        default=False, description="Another number breaks the rule; otherwise it makes the rule not testable."
    )


class Unreached(_Model):
    """Since a host began to serve a chain, the agent has connected to it, but no request has reached it."""

    do: Literal["unreached"]
    host: Host


Step = Annotated[Serve | Visit | Pass | Forget | Preload | Restart | Reports | Unreached, Field(discriminator="do")]


class Rule(_Model):
    """One rule of RFC 7469, and the steps that show whether an agent keeps it.

    Attributes:
        id: its name.
        section: its section in RFC 7469.
        level: how strongly the RFC requires it.
        text: what the client does.
        needs_noting: whether an agent that notes nothing would keep it only for that reason.
        steps: in their order; the store is empty at first.
    """

    id: str
    section: str
    level: Level
    text: str
    needs_noting: bool = True
    steps: tuple[Step, ...]


class Rules(_Model):
    """The file of the rules."""

    about: str
    version: int
    license: Literal["CC0-1.0"]
    rules: tuple[Rule, ...]


@lru_cache(maxsize=1)
def rules() -> Sequence[Rule]:
    """All rules, roughly in the order of the RFC's sections."""
    return Rules.model_validate_json((DATA / "rules.json").read_bytes()).rules
