"""The rules that an agent is put through: data, read from ``data/rules.json``."""

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

# Data for other projects too; its README.md and LICENSE stand beside it.
DATA = Path(__file__).with_name("data")

# How strongly the RFC asks for a rule, the strongest first.
Level = Literal["MUST", "SHOULD", "MAY"]
LEVELS: tuple[Level, ...] = ("MUST", "SHOULD", "MAY")
Host = Annotated[str, Field(description="A name below .test, or 127.0.0.1.")]
Chain = Annotated[
    str,
    Field(
        pattern=r"^[A-D](@(other-root|untrusted|expired|wrong-name)|\+[A-D])?$",
        description="The leaf key; @ says what is other about its certificate, + which leaf is sent along.",
    ),
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Serve(_Model):
    """A host shows a chain and sends these header fields from now on; the agent does nothing."""

    do: Literal["serve"]
    host: Host
    chain: Chain = "A"
    headers: tuple[tuple[str, str], ...] = ()


class Visit(_Model):
    """A host shows a chain and answers with these header fields; the agent asks for ``/``.

    ``served`` means that the request reached the server, ``refused`` that none did.
    """

    do: Literal["visit"]
    host: Host
    chain: Chain = "A"
    headers: tuple[tuple[str, str], ...] = Field(
        default=(), description="{A} is the pin of key A, {http:HOST} and {url:HOST} a URL of that host."
    )
    scheme: Literal["https", "http"] = "https"
    port: Literal[1, 2] = Field(default=1, description="Which of the host's two ports.")
    status: int = 200
    redirect: Host | None = Field(default=None, description="Answer with 302 to this host.")
    body: str = ""
    judge: Host | None = Field(
        default=None, description="The host whose server tells the outcome; else the one that is visited."
    )
    resumed: bool = Field(
        default=False, description="The rule can be decided only where the agent offers its TLS session."
    )
    expect: Literal["served", "refused"]
    decides: bool = Field(
        default=False, description="Another outcome breaks the rule; else it leaves the rule not testable."
    )


class Pass(_Model):
    """Time passes for the agent."""

    do: Literal["pass"]
    seconds: int


class Forget(_Model):
    """The user has the agent forget a host."""

    do: Literal["forget"]
    host: Host


class Preload(_Model):
    """The agent gets static pins of a host."""

    do: Literal["preload"]
    host: Host
    pins: tuple[Literal["A", "B", "C", "D", "I", "R", "X"], ...]


class Restart(_Model):
    """The agent's process ends, and another begins."""

    do: Literal["restart"]


class Reports(_Model):
    """How many violation reports have arrived at ``http://reports.test``."""

    do: Literal["reports"]
    expect: int
    members: bool = Field(default=False, description="Each has the members of RFC 7469 §3.")
    decides: bool = Field(
        default=False, description="Another number breaks the rule; else it leaves the rule not testable."
    )


class Unreached(_Model):
    """Since a host began to serve a chain, the agent has connected to it, and no request has reached it."""

    do: Literal["unreached"]
    host: Host


Step = Annotated[Serve | Visit | Pass | Forget | Preload | Restart | Reports | Unreached, Field(discriminator="do")]


class Rule(_Model):
    """One rule of RFC 7469, and the steps that show whether an agent keeps it.

    Attributes:
        id: its name.
        section: of RFC 7469.
        level: how strongly the RFC asks for it.
        text: what the client does.
        needs_noting: whether an agent that notes nothing would keep it for that reason alone.
        steps: in their order, with an empty store at first.
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
    """All rules, in the order of the RFC's sections as far as that goes."""
    return Rules.model_validate_json((DATA / "rules.json").read_bytes()).rules
