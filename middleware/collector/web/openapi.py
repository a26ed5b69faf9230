"""The OpenAPI document of the intake and the API, made from the routes and their models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from dynpin._version import __version__

from ..storage import Mode
from .answers import Declined, Envelope, Error, Sent
from .query import Query
from .routes import CheckedRoute, Operation

__all__ = ["openapi_document"]

Schema = dict[str, Any]
Described = tuple[str, str, type[Query], Operation]


class _ReportURI(Query):
    token: str = Field(pattern="^[A-Za-z0-9._~-]{1,128}$", description="The token, which names the policy.")
    mode: Mode = Field(description="The mode: enforced or report-only.")


_INTAKE = "/r/{token}/{mode}"
_NO_REPORT_URI = "No such report-uri, or its token was revoked."
_Entry = Sent | Envelope
# The intake has no Starlette route, since it is faster without one.
_OF_INTAKE: list[Described] = [
    (
        _INTAKE,
        "post",
        Query,
        Operation(
            summary="Take a report, or an envelope of several.",
            answer=Declined,
            path=_ReportURI,
            body=_Entry | Annotated[list[_Entry], Field(min_length=1)],
            media_types=("application/json", "application/reports+json"),
            successes={200: "Valid, but some or all reports were declined.", 204: "Every report is on the disk."},
            failures={
                400: "Not a report.",
                404: _NO_REPORT_URI,
                408: "The body took too long to arrive.",
                413: "Too large.",
                415: "Not JSON, or compressed.",
                429: "The limit of this hour is reached.",
                503: "The disk is full, read-only or too slow, or the file is gone.",
            },
            silent=(429,),
            is_public=True,
        ),
    ),
    (
        _INTAKE,
        "options",
        Query,
        Operation(
            summary="Allow scripts of any page to send reports (CORS).",
            path=_ReportURI,
            successes={204: "They may."},
            failures={404: _NO_REPORT_URI},
            is_public=True,
        ),
    ),
]


class _Untitled(GenerateJsonSchema):
    """A schema without titles, which would only repeat the names."""

    def field_title_should_be_set(self, schema: object) -> bool:
        """Never."""
        return False


def openapi_document(base: str, routes: Iterable[CheckedRoute]) -> Schema:
    """The document (OpenAPI 3.1) of a collector that is mounted at the path `base` and has these routes."""
    operations = [*_OF_INTAKE]
    for route in routes:
        if route.operation is not None:
            operations.append((route.path, route.method, route.query, route.operation))
    schemas, components = _schemas(operations)
    paths: dict[str, Schema] = {}
    for path, method, query, operation in operations:
        paths.setdefault(path, {})[method] = _operation(query, operation, schemas)
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
        "paths": paths,
        "components": {
            "securitySchemes": {
                "password": {"type": "http", "scheme": "basic", "description": "Any user name, and the password."},
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Scope read or site:HOST: may read. Scope triage: may decide about groups.",
                },
                "session": {"type": "apiKey", "in": "cookie", "name": "dynpin_session"},
            },
            "schemas": components,
        },
    }


_Key = tuple[int, Literal["answer", "body"]]


def _schemas(operations: list[Described]) -> tuple[dict[_Key, Schema], Schema]:
    """The schema of each answer and body, and their shared components."""
    wanted: list[tuple[_Key, JsonSchemaMode, TypeAdapter[Any]]] = [((0, "answer"), "serialization", TypeAdapter(Error))]
    for *_, operation in operations:
        if operation.answer is not None:
            wanted.append(((id(operation), "answer"), "serialization", TypeAdapter(operation.answer)))
        if operation.body is not None:
            wanted.append(((id(operation), "body"), "validation", TypeAdapter(operation.body)))
    made, shared = TypeAdapter.json_schemas(
        wanted, ref_template="#/components/schemas/{model}", schema_generator=_Untitled
    )
    return {key: schema for (key, _), schema in made.items()}, shared.get("$defs", {})


def _operation(query: type[Query], operation: Operation, schemas: dict[_Key, Schema]) -> Schema:
    answers: Schema = {}
    for status, means in operation.successes.items():
        content: Schema = {text: {"schema": {"type": "string"}} for text in operation.texts}
        if operation.answer is not None:
            content["application/json"] = {"schema": schemas[id(operation), "answer"]}
        answers[str(status)] = {"description": means} | ({"content": content} if content and status == 200 else {})
    for status, means in operation.failures.items():
        answer: Schema = {"description": means}
        if status not in operation.silent:
            answer["content"] = {"application/json": {"schema": schemas[0, "answer"]}}
        elif operation.texts:
            answer["content"] = {text: {"schema": {"type": "string"}} for text in operation.texts}
        if status in (429, 503):
            answer["headers"] = {"Retry-After": {"schema": {"type": "string"}}}
        answers[str(status)] = answer
    shown: Schema = {
        "summary": operation.summary,
        "parameters": [*_parameters(operation.path, "path"), *_parameters(query, "query")],
        "responses": answers,
    }
    if operation.body is not None:
        body = {"schema": schemas[id(operation), "body"]}
        shown["requestBody"] = {"required": True, "content": dict.fromkeys(operation.media_types, body)}
    return shown | ({"security": []} if operation.is_public else {})


def _parameters(model: type[Any], place: str) -> list[Schema]:
    parameters: list[Schema] = []
    for name, schema in model.model_json_schema(schema_generator=_Untitled).get("properties", {}).items():
        description = schema.pop("description", "")
        if schema.get("default") in ("", []):
            del schema["default"]
        parameters.append(
            {"name": name, "in": place, "required": place == "path", "schema": schema, "description": description}
        )
    return parameters
