"""The signed list of pins: the new keys of hosts, for recovery.

It is a JSON file, the target ``pins.json`` of a repository of The Update Framework (TUF), which signs it.

.. code-block:: json

    {"hosts": {"www.example.com": {"include_subdomains": false, "pins": ["d6qz…=", "E9CZ…="]}}, "max_age": 2592000}

A host without pins is released: clients forget its pins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NoReturn, cast

from dynpin.errors import InvalidHost, InvalidPinFile
from dynpin.header import MAX_PINS
from dynpin.hosts import canonical_host, is_ip_literal
from dynpin.pins import Pin

__all__ = ["LONGEST_LIST", "PIN_LIST", "ListedHost", "PinList"]

# The name of the list among the targets of its repository.
PIN_LIST = "pins.json"
# In bytes: some 50,000 hosts with three pins each.
LONGEST_LIST = 8_000_000
# How long a client keeps the list after it last saw it, in seconds, unless the list has another max_age.
_MAX_AGE = 30 * 86_400


@dataclass(frozen=True, slots=True)
class ListedHost:
    """One host of the list.

    Attributes:
        pins: the keys that hold from now on; empty to release the host.
        include_subdomains: whether they cover every subdomain.
        ends_at: when they end, in seconds since the epoch, for a list that was read in another format; None if
            `max_age` of the list ends them. It is not written.
    """

    pins: tuple[Pin, ...]
    include_subdomains: bool = False
    ends_at: float | None = None


@dataclass(frozen=True, slots=True)
class PinList:
    """A list of pins.

    Attributes:
        hosts: the hosts, by canonical name.
        max_age: how long a client keeps the list after it last saw it, in seconds. A host that was noted from a header
            keeps the time of the header.
    """

    hosts: Mapping[str, ListedHost]
    max_age: int = _MAX_AGE

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", MappingProxyType(dict(sorted(self.hosts.items()))))

    def to_bytes(self) -> bytes:
        """The content of the file; the same bytes for the same list."""
        hosts = {
            name: {"include_subdomains": listed.include_subdomains, "pins": [str(pin) for pin in listed.pins]}
            for name, listed in self.hosts.items()
        }
        return (json.dumps({"hosts": hosts, "max_age": self.max_age}, indent=1) + "\n").encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> PinList:
        """Read the file strictly: one fault refuses the whole list. Unknown members are ignored.

        Raises:
            InvalidPinFile: the message names the host and the fault.
        """
        if len(data) > LONGEST_LIST:
            raise InvalidPinFile(f"the list has {len(data)} bytes, but the limit is {LONGEST_LIST}")
        try:
            loaded = json.loads(data.decode("utf-8"), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise InvalidPinFile(f"the list is not JSON: {error}") from None
        members = _object(loaded, "the list")
        max_age = members.get("max_age", _MAX_AGE)
        if not isinstance(max_age, int) or isinstance(max_age, bool) or not 0 < max_age <= 2**31:
            raise InvalidPinFile("max_age of the list is not a whole number of seconds, at least 1")
        hosts = _object(members.get("hosts"), "hosts of the list")
        return cls({_host(name): _listed(name, member) for name, member in hosts.items()}, max_age)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidPinFile(f"{what} is not a JSON object")
    return cast("dict[str, object]", value)


def _host(name: str) -> str:
    try:
        canonical = canonical_host(name)
    except InvalidHost as error:
        raise InvalidPinFile(f"the list has a host that is not valid: {error}") from None
    if canonical != name or is_ip_literal(name) or "*" in name:
        raise InvalidPinFile(f"the list has {name[:300]!r}, which is not a canonical host name")
    return name


def _listed(name: str, member: object) -> ListedHost:
    fields = _object(member, f"the list's entry of {name[:300]!r}")
    covers, texts = fields.get("include_subdomains", False), fields.get("pins")
    if not isinstance(covers, bool):
        raise InvalidPinFile(f"include_subdomains of {name} is not true or false")
    if not isinstance(texts, list):
        raise InvalidPinFile(f"pins of {name} is not a list")
    pins: dict[Pin, None] = {}
    for text in cast("list[object]", texts):
        try:
            pins[Pin.from_base64(text if isinstance(text, str) else "")] = None
        except ValueError as error:
            raise InvalidPinFile(f"pins of {name}: {error}") from None
    if len(pins) > MAX_PINS:
        raise InvalidPinFile(f"{name} has {len(pins)} pins, but the limit is {MAX_PINS}")
    return ListedHost(tuple(pins), covers)
