"""The OpenAPI document of what programs send and read: it stands beside the routes, and a test holds both together."""

from __future__ import annotations

from collections.abc import Iterable

from dynpin._version import __version__

from ..storage import FIELDS, MAX_VALUES, STATES
from ..triage import SEVERITIES, VERDICTS
from .audit import ACTIONS
from .export import FORMATS
from .sites import site_operations, site_schemas
from .wanted import CHOICES

__all__ = ["openapi_document"]

Schema = dict[str, object]

_MODE: Schema = {"type": "string", "enum": ["enforce", "report-only"]}
_TIME: Schema = {"type": "string", "format": "date-time"}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_PLAIN: Schema = {"text/plain": {"schema": _TEXT}}
_PORT: Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": 65535}


def openapi_document(base: str, *, max_limit: int) -> dict[str, object]:
    """The document, OpenAPI 3.1, for a collector that is mounted at this path."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dynpin collector",
            "version": __version__,
            "summary": "Violation reports of HTTP Public Key Pinning (RFC 7469 §3): sent by clients, read by programs.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": base or "/"}],
        "security": [{"password": []}, {"token": []}, {"session": []}],
        "paths": {
            "/r/{token}/{mode}": _intake(),
            "/api/reports": {"get": _listing("Reports, newest first.", "Reports", max_limit)},
            "/api/groups": {"get": _listing("Groups of reports, the last seen first.", "Groups", max_limit)},
            "/api/groups/{key}/state": _state(),
            "/api/sites/{host}/state": site_operations(),
            "/api/audit": {"get": _audit(max_limit)},
            "/api/openapi.json": {
                "get": _read("This document.", {"application/json": {"schema": {"type": "object"}}}, failures=())
            },
            "/export/{what}.{form}": _export(),
            "/metrics": {"get": _read("What Prometheus reads.", _PLAIN)},
            "/healthz": {
                "get": {
                    "summary": "Whether the process lives; no disk is touched.",
                    "security": [],
                    "responses": {"200": _answer("It does.", _PLAIN)},
                }
            },
            "/readyz": {
                "get": {
                    "summary": "Whether a report would be stored now.",
                    "security": [],
                    "responses": {
                        "200": _answer("It would.", _PLAIN),
                        "503": _answer("It would not; the pages and the log say why.", _PLAIN, ["Retry-After"]),
                    },
                }
            },
        },
        "components": {
            "securitySchemes": {
                "password": {"type": "http", "scheme": "basic", "description": "Any user name, and the password."},
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Of scope read or site:HOST to read, of scope triage to decide about groups.",
                },
                "session": {"type": "apiKey", "in": "cookie", "name": "dynpin_session"},
            },
            "responses": {
                name: _answer(description, {"application/json": {"schema": _ref("Error")}})
                for name, description in _FAILURES.values()
            },
            "schemas": _SCHEMAS | site_schemas(),
        },
    }


_FORMS = {"pin": "^[A-Za-z0-9+/]{43}=$", "group": "^[0-9a-f]{32}$"}
_GROUP_KEY: Schema = {"type": "string", "pattern": _FORMS["group"]}
_STATE: Schema = {"type": "string", "enum": list(STATES)}


# -- the operations ---------------------------------------------------------------------------------------------------

_FAILURES = {
    "400": ("BadRequest", "A filter, a limit, a cursor or a state that cannot be read."),
    "401": ("SignIn", "Who asks has not signed in."),
    "403": ("NoAccess", "Nobody may read yet, the token has not the scope, or it came over http."),
    "404": ("NotFound", "There is no such thing here."),
    "429": ("Paused", "After too many wrong passwords; Retry-After says for how long."),
    "503": ("NotStored", "The storage cannot be used; the message names the file and the cause."),
}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(description: str, content: Schema | None = None, headers: Iterable[str] = ()) -> Schema:
    answer: Schema = {"description": description}
    if content is not None:
        answer["content"] = content
    shown = {name: {"schema": {"type": "string"}} for name in headers}
    return answer | ({"headers": shown} if shown else {})


def _read(
    summary: str, content: Schema, parameters: Iterable[Schema] = (), failures: Iterable[str] = ("503",)
) -> Schema:
    return {
        "summary": summary,
        "parameters": list(parameters),
        "responses": {
            "200": _answer("It.", content),
            **{
                status: {"$ref": f"#/components/responses/{_FAILURES[status][0]}"}
                for status in ("401", "403", "429", *failures)
            },
        },
    }


def _parameter(name: str, schema: Schema, description: str, place: str = "query") -> Schema:
    return {"name": name, "in": place, "required": place == "path", "schema": schema, "description": description}


def _filters() -> list[Schema]:
    moment: Schema = {
        "anyOf": [
            {"type": "string", "pattern": "^([0-9]{1,5}[mhdw])?$"},
            {"type": "string", "format": "date"},
            {"type": "string", "format": "date-time"},
        ]
    }
    terms = [
        _parameter(f"{name}{sign}", _values(name), f"{shown}{' not' if sign else ''} one of these.")
        for name, shown in FIELDS.items()
        for sign in ("", "!")
    ]
    return [
        *terms,
        _parameter("since", moment, "Not before this: 24h, 7d, a date, or a time of RFC 3339."),
        _parameter("until", moment, "Before this, in the same forms."),
    ]


def _values(name: str) -> Schema:
    """The values of one filter."""
    item: Schema = {"type": "string", "minLength": 1}
    if name in CHOICES:
        item = {"type": "string", "enum": list(CHOICES[name])}
    elif name in _FORMS:
        item = {"type": "string", "pattern": _FORMS[name]}
    return {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_VALUES}


def _limit(most: int) -> Schema:
    schema: Schema = {"type": "integer", "minimum": 1, "maximum": most, "default": 50}
    return _parameter("limit", schema, "Entries at most.")


def _listing(summary: str, name: str, max_limit: int) -> Schema:
    parameters = [
        *_filters(),
        _limit(max_limit),
        _parameter(
            "cursor",
            {"anyOf": [_ref("Cursor"), {"type": "string", "maxLength": 0}]},
            "Where to go on: the cursor of the page before.",
        ),
    ]
    return _read(summary, {"application/json": {"schema": _ref(name)}}, parameters, failures=("400", "503"))


def _export() -> Schema:
    content: Schema = {media_type.partition(";")[0]: {"schema": _TEXT} for media_type in FORMATS.values()}
    content["application/json"] = {"schema": {"type": "array", "items": {"anyOf": [_ref("Report"), _ref("Group")]}}}
    parameters = [
        _parameter("what", {"type": "string", "enum": ["reports", "groups"]}, "What is exported.", "path"),
        _parameter("form", {"type": "string", "enum": list(FORMATS)}, "In which form.", "path"),
        *_filters(),
    ]
    failures = ("400", "404", "503")
    return {"get": _read("Everything that a filter wants, streamed.", content, parameters, failures)}


def _audit(max_limit: int) -> Schema:
    return _read(
        "What people and programs did, or tried; the last first.",
        {"application/json": {"schema": _ref("Audit")}},
        [_limit(max_limit)],
        failures=("400", "503"),
    )


def _state() -> Schema:
    body: Schema = {"application/json": {"schema": _object(state=_STATE)}}
    operation = _read(
        "Decide about a group: resolve it, mute it, or open it again.",
        {"application/json": {"schema": _ref("Group")}},
        [_parameter("key", _GROUP_KEY, "The group.", "path")],
        failures=("400", "404", "503"),
    )
    return {"post": operation | {"requestBody": {"required": True, "content": body}}}


def _intake() -> Schema:
    error: Schema = {"application/json": {"schema": _ref("Error")}}
    one: list[Schema] = [_ref("Sent"), _ref("Envelope")]
    body: Schema = {"schema": {"anyOf": [*one, {"type": "array", "minItems": 1, "items": {"anyOf": one}}]}}
    return {
        "parameters": [
            _parameter("token", {"type": "string", "pattern": "^[A-Za-z0-9._~-]{1,128}$"}, "Names the policy.", "path"),
            _parameter("mode", _MODE, "Enforced, or report-only.", "path"),
        ],
        "post": {
            "summary": "Take a report, or an envelope of several.",
            "security": [],
            "requestBody": {"required": True, "content": {"application/json": body, "application/reports+json": body}},
            "responses": {
                "204": _answer("Every report is on the disk."),
                "200": _answer(
                    "Sound, and some or all of it not for us.", {"application/json": {"schema": _ref("Declined")}}
                ),
                "400": _answer("No report.", error),
                "404": _answer("No such report-uri, or its token was revoked.", error),
                "408": _answer("The body took too long to arrive.", error),
                "413": _answer("Too large.", error),
                "415": _answer("Nothing like JSON, or compressed.", error),
                "429": _answer("Enough for this hour.", headers=["Retry-After"]),
                "503": _answer("The disk is full, read-only or too slow, or the file is gone.", error, ["Retry-After"]),
            },
        },
        "options": {
            "summary": "Let scripts on any page report (CORS).",
            "security": [],
            "responses": {"204": _answer("They may."), "404": _answer("No such report-uri.", error)},
        },
    }


# -- the values -------------------------------------------------------------------------------------------------------


def _object(**members: Schema) -> Schema:
    named = {name.replace("_", "-"): schema for name, schema in members.items()}
    return {"type": "object", "properties": named, "required": list(named), "additionalProperties": False}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


_VERDICT: Schema = {"type": "string", "enum": list(VERDICTS)}
_SEVERITY: Schema = {"type": "string", "enum": list(SEVERITIES)}
_CURSOR: Schema = {"type": "string", "pattern": r"^[0-9]{1,12}\.[0-9]{1,12}_[0-9]{1,18}$"}

_SCHEMAS: dict[str, Schema] = {
    "Error": _object(error=_TEXT, message=_TEXT),
    "Declined": _object(accepted=_COUNT, declined=_list(_object(report=_COUNT, error=_TEXT))),
    "Cursor": _CURSOR,
    "Reports": _object(entries=_list(_ref("Report")), cursor=_or_null(_ref("Cursor"))),
    "Groups": _object(entries=_list(_ref("Group")), cursor=_or_null(_ref("Cursor"))),
    "Report": _object(
        id=_COUNT,
        group=_TEXT,
        received_at=_TIME,
        host=_TEXT,
        noted_host=_or_null(_TEXT),
        port=_PORT,
        mode=_MODE,
        verdict=_or_null(_VERDICT),
        token=_TEXT,
        source=_or_null(_TEXT),
        user_agent=_or_null(_TEXT),
        flags=_list(_TEXT),
        report={"type": ["object", "null"], "description": "The body as it came; null once it was pruned."},
    ),
    "Group": _object(
        group=_TEXT,
        host=_TEXT,
        noted_host=_or_null(_TEXT),
        port=_PORT,
        mode=_MODE,
        token=_TEXT,
        state=_STATE,
        reports=_COUNT,
        first_seen=_TIME,
        last_seen=_TIME,
        known_pins=_list(_TEXT),
        validated_pins=_list(_TEXT),
        issuer=_or_null(_TEXT),
        verdict=_or_null(_VERDICT),
        severity=_or_null(_SEVERITY),
        diagnosis=_or_null(_ref("Diagnosis")),
    ),
    "Audit": _object(
        entries=_list(
            _object(
                at=_TIME,
                who=_TEXT,
                source=_or_null(_TEXT),
                action={"type": "string", "enum": list(ACTIONS)},
                subject=_or_null(_TEXT),
            )
        )
    ),
    "Diagnosis": _object(
        verdict=_VERDICT,
        title=_TEXT,
        severity=_SEVERITY,
        summary=_TEXT,
        advice=_TEXT,
        reasons=_list(_TEXT),
        notes=_list(_TEXT),
        failing=_or_null(_COUNT),
        root={"type": "string", "enum": ["own", "public", "retired", "unknown"]},
        report_only_inferred={"type": "boolean"},
        known_pins=_list(_object(pin=_TEXT, key=_or_null(_TEXT))),
        served=_list(_ref("Certificate")),
        validated=_list(_ref("Certificate")),
    ),
    "Certificate": _object(
        subject=_TEXT,
        issuer=_TEXT,
        serial=_TEXT,
        names=_list(_TEXT),
        not_before=_or_null(_TIME),
        not_after=_or_null(_TIME),
        key=_TEXT,
        pin=_or_null(_TEXT),
        matches={"type": "boolean"},
        own_key=_or_null(_TEXT),
        is_ca={"type": "boolean"},
        self_issued={"type": "boolean"},
        signed_by_next={"type": ["boolean", "null"]},
        fingerprint=_TEXT,
        fault=_TEXT,
    ),
    "Envelope": {
        "type": "object",
        "description": "What the Reporting API sends: a type, and the report as its body. Other types are declined.",
        "properties": {"type": _TEXT, "body": _ref("Sent")},
        "required": ["type", "body"],
    },
    # What a client sends is read leniently: only what must be there is asked for, the rest is flagged where it is odd.
    "Sent": {
        "type": "object",
        "description": "A violation report (RFC 7469 §3). Odd members are flagged, unknown ones are kept.",
        "properties": {
            "date-time": {"description": "When the client saw it, RFC 3339."},
            "hostname": {"type": "string", "minLength": 1, "description": "The host of the request."},
            "port": {"description": "Its port, 1 to 65535."},
            "effective-expiration-date": {"description": "When the client forgets the pins, RFC 3339."},
            "include-subdomains": {"description": "true or false."},
            "noted-hostname": {"description": "The Known Pinned Host whose pins were applied."},
            "served-certificate-chain": {"description": "PEM certificates as the server sent them, leaf first."},
            "validated-certificate-chain": {"description": "PEM certificates of the path that the client built."},
            "known-pins": {"type": "array", "minItems": 1, "description": 'Such as pin-sha256="d6qz…M=".'},
        },
        "required": ["hostname", "known-pins"],
    },
}
