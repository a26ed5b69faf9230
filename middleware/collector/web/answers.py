"""The answers to programs. Each shape is declared here once, and the OpenAPI document is made from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from starlette.responses import JSONResponse

from dynpin.report import rfc3339

from ..storage import MODES, STATES, State
from ..stored_json import kept
from ..triage import SEVERITIES, VERDICTS, Diagnosis, Severity, Time, VerdictName
from .audit import ACTIONS

__all__ = [
    "ASCIIJSONResponse",
    "Answer",
    "Audit",
    "AuditEntry",
    "Decided",
    "Decision",
    "Error",
    "Group",
    "Groups",
    "Moment",
    "Report",
    "Reports",
    "failure",
]


class ASCIIJSONResponse(JSONResponse):
    """JSON in ASCII. Starlette's JSON leaves control sequences of strangers unescaped, and terminals obey them."""

    def render(self, content: object) -> bytes:
        """The body."""
        shown = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
        return json.dumps(shown, allow_nan=False).encode()


class Answer(BaseModel):
    """An answer as JSON. Its fields are read from the attributes of a stored value."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"additionalProperties": False})


def _choice(values: Mapping[str, object] | tuple[str, ...]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": list(values)})


def _known(values: Mapping[Any, object]) -> BeforeValidator:
    """Turn unknown values, of another version or a damaged file, into None."""
    return BeforeValidator(lambda value: value if value in values else None)


Moment = Annotated[Time, BeforeValidator(rfc3339)]
_TextOrNull = Annotated[str | None, BeforeValidator(lambda text: text or None)]
_Mode = Annotated[str, _choice(MODES)]
_Verdict = Annotated[VerdictName | None, _known(VERDICTS)]
_Port = Annotated[int, Field(ge=1, le=65535)] | None


class Error(Answer):
    """The error: a stable name, and a sentence."""

    error: str
    message: str


class Group(Answer):
    """All reports of one cause."""

    group: str = Field(validation_alias="key")
    host: str
    noted_host: _TextOrNull
    port: _Port
    mode: _Mode
    token: str
    state: Annotated[str, _choice(STATES)]
    reports: int = Field(ge=0)
    first_seen: Moment
    last_seen: Moment
    known_pins: list[str]
    validated_pins: list[str]
    issuer: str | None
    verdict: _Verdict = Field(description="Null until a worker has judged it.")
    severity: Annotated[Severity | None, _known(SEVERITIES)]
    diagnosis: Annotated[Diagnosis | None, BeforeValidator(Diagnosis.read)]


class Report(Answer):
    """One report."""

    id: int = Field(ge=0)
    group: str = Field(validation_alias=AliasPath("group", "key"))
    received_at: Moment
    host: str = Field(validation_alias=AliasPath("group", "host"))
    noted_host: _TextOrNull = Field(validation_alias=AliasPath("group", "noted_host"))
    port: _Port = Field(validation_alias=AliasPath("group", "port"))
    mode: _Mode = Field(validation_alias=AliasPath("group", "mode"))
    verdict: _Verdict = Field(validation_alias=AliasPath("group", "verdict"))
    token: str
    source: _TextOrNull
    user_agent: _TextOrNull
    flags: list[str]
    report: Annotated[
        Any,
        BeforeValidator(kept),
        WithJsonSchema({"type": ["object", "null"]}),
    ] = Field(validation_alias="body", description="The body as it was sent; null if it is not kept.")


class Groups(Answer):
    """Groups, the last seen first."""

    entries: list[Group]
    hosts: tuple[str, ...] = Field(
        description="The hosts that this token may read about, with subdomains; empty for all hosts."
    )
    cursor: str | None = Field(description="The cursor of the next page; null on the last page.")


class Reports(Answer):
    """Reports, newest first."""

    entries: list[Report]
    cursor: str | None = Field(description="The cursor of the next page; null on the last page.")


class AuditEntry(Answer):
    """An action of a person or a program, or an attempt."""

    at: Moment
    who: str
    source: _TextOrNull
    action: Annotated[str, _choice(ACTIONS)]
    subject: _TextOrNull


class Audit(Answer):
    """What people and programs did, newest first."""

    entries: list[AuditEntry]


class AlertChannel(Answer):
    """A channel of alerts, and its state."""

    name: str
    sent_at: Moment | None = Field(description="When it last took a message.")
    sent: str = Field(description="The subject of that message.")
    digest_at: Moment | None
    failing_since: Moment | None = Field(description="Since when it takes no message; null if it works.")
    waiting: int = Field(ge=0, description="How many groups it must still be told of.")


class AlertChannels(Answer):
    """The channels of alerts, by their names."""

    entries: list[AlertChannel]


class Decision(BaseModel):
    """The new state of a group."""

    model_config = ConfigDict(extra="forbid")

    state: State


class Decided(BaseModel):
    """The answer of a decision, for a token that may not read."""

    model_config = ConfigDict(extra="forbid")

    group: str
    state: State


# -- the intake: these models only describe it, since it accepts more than they allow ----------------------------------


class Sent(BaseModel):
    """A violation report (RFC 7469 §3). The collector flags strange members, and keeps unknown ones."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))

    date_time: Any = Field(default=None, description="When the client saw it, RFC 3339.")
    hostname: str = Field(min_length=1, description="The host of the request.")
    port: Any = Field(default=None, description="Its port, 1 to 65535.")
    effective_expiration_date: Any = Field(default=None, description="When the client forgets the pins, RFC 3339.")
    include_subdomains: Any = Field(default=None, description="true or false.")
    noted_hostname: Any = Field(default=None, description="The Known Pinned Host whose pins were applied.")
    served_certificate_chain: Any = Field(default=None, description="PEM, as the server sent them, the leaf first.")
    validated_certificate_chain: Any = Field(default=None, description="PEM, the path that the client built.")
    known_pins: list[Any] = Field(min_length=1, description='Such as pin-sha256="d6qz…M=".')


class Envelope(BaseModel):
    """A report of the Reporting API: a type, and the violation report as its body. Other types are declined."""

    type: str
    body: Sent


class DeclinedReport(Answer):
    """Which report of an envelope was declined, and why."""

    report: int = Field(ge=0)
    error: str


class Declined(Answer):
    """How many reports were taken, and which were declined."""

    accepted: int = Field(ge=0)
    declined: list[DeclinedReport]


def failure(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> ASCIIJSONResponse:
    """An error as JSON."""
    return ASCIIJSONResponse(Error(error=code, message=message), status, headers)
