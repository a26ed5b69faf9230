"""Read header fields from their sources: the lines of a response, or a HAR file."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from dynpin.counts import counted
from dynpin.errors import InvalidHeader
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME, PublicKeyPins

from .circumstances import Circumstances

__all__ = ["HeaderField", "fields_of_har", "fields_of_lines", "fields_of_response"]

_NAMES = {name.lower(): name for name in (ENFORCE_NAME, REPORT_ONLY_NAME)}


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One header field to lint, with its source and its circumstances.

    Attributes:
        source: where it was found, for messages.
        name: the name of the field, as in the RFC.
        value: its value; None if none is sent and only the circumstances say what is wrong.
        circumstances: the known facts about it.
    """

    source: str
    name: str
    value: str | None
    circumstances: Circumstances

    @property
    def header(self) -> PublicKeyPins | None:
        """The header as clients read it; None if there is none, or if they ignore it."""
        if self.value is None:
            return None
        try:
            return PublicKeyPins.parse(self.value, report_only=self.name == REPORT_ONLY_NAME)
        except InvalidHeader:
            return None


def fields_of_response(
    headers: Iterable[tuple[str, str]], source: str, circumstances: Circumstances
) -> list[HeaderField]:
    """The pinning fields of one response: the first of each name. Further ones are circumstances of the first."""
    by_name: dict[str, list[str]] = {}
    for name, value in headers:
        known = _NAMES.get(name.strip().lower())
        if known:
            by_name.setdefault(known, []).append(value)
    return [
        HeaderField(
            source,
            name,
            values[0],
            dataclasses.replace(
                circumstances,
                fields=tuple(values),
                also={other: sent[0] for other, sent in by_name.items() if other != name},
            ),
        )
        for name, values in by_name.items()
    ]


def fields_of_lines(text: str, circumstances: Circumstances) -> list[HeaderField]:
    """The pinning fields in the header lines of one response, such as the output of ``curl -sI``.

    Raises:
        ValueError: if there is none.
    """
    # RFC 7230 §3.2.4: a line that begins with white space continues the previous one.
    lines = re.sub(r"\r?\n[ \t]+(?=\S)", " ", text).splitlines()
    headers = [(name, value.strip()) for name, colon, value in (line.partition(":") for line in lines) if colon]
    found = fields_of_response(headers, "stdin", circumstances)
    if not found:
        raise ValueError(f"no {ENFORCE_NAME} and no {REPORT_ONLY_NAME} line among the {len(lines)} that were read")
    return found


def fields_of_har(text: str | bytes, circumstances: Circumstances) -> list[HeaderField]:
    """The pinning fields of an HTTP Archive: each distinct one once for each host, with the paths without it.

    Raises:
        ValueError: if it is not a HAR, or if no response in it has a pinning field.
    """
    try:
        entries = cast("dict[str, dict[str, list[dict[str, object]]]]", json.loads(text))["log"]["entries"]
        responses = [_response(entry) for entry in entries]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        lacks = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"this is not an HTTP Archive, as the developer tools of a browser save it: {lacks}") from None
    found: dict[tuple[str, str, str | None], HeaderField] = {}
    for url, headers in responses:
        parts = urlsplit(url)
        host = parts.hostname or ""
        own = dataclasses.replace(circumstances, scheme=parts.scheme or None, host=host or None)
        for each in fields_of_response(headers, url, own):
            found.setdefault((host, each.name, each.value), each)
    if not found:
        raise ValueError(f"there is no pinning header in the archive, which has {counted(len(responses), 'response')}")
    return [_with_paths(each, responses) for each in found.values()]


def _response(entry: dict[str, object]) -> tuple[str, list[tuple[str, str]]]:
    request = cast("dict[str, object]", entry["request"])
    response = cast("dict[str, list[dict[str, str]]]", entry["response"])
    return str(request["url"]), [(header["name"], header["value"]) for header in response["headers"]]


def _with_paths(each: HeaderField, responses: list[tuple[str, list[tuple[str, str]]]]) -> HeaderField:
    paths: dict[str, str | None] = {}
    for url, headers in responses:
        parts = urlsplit(url)
        if parts.hostname == each.circumstances.host and parts.scheme == "https":
            value = next((value for name, value in headers if name.lower() == each.name.lower()), None)
            paths[parts.path or "/"] = value
    return dataclasses.replace(each, circumstances=dataclasses.replace(each.circumstances, paths=paths))
