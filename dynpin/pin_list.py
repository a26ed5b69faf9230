"""The signed list of pins: which keys hold for which hosts from now on (DESIGN, "Recovery").

It is one file of JSON, the target ``pins.json`` of a repository of The Update Framework, which vouches for its bytes.

.. code-block:: json

    {"hosts": {"www.example.com": {"include_subdomains": false, "pins": ["d6qz…=", "E9CZ…="]}}, "max_age": 2592000}

A host without pins is released: clients forget what they have noted of it.
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
# Who follows the list forgets it after so long without it, unless it says otherwise. In seconds.
_MAX_AGE = 30 * 86_400


@dataclass(frozen=True, slots=True)
class ListedHost:
    """What the list says of one host.

    Attributes:
        pins: the keys that hold from now on; none to release the host.
        include_subdomains: whether they cover every subdomain.
        ends_at: when a list that was read in another format ends them, in seconds since the epoch; None if
            `max_age` of the list does. It is not written.
    """

    pins: tuple[Pin, ...]
    include_subdomains: bool = False
    ends_at: float | None = None


@dataclass(frozen=True, slots=True)
class PinList:
    """What holds for which hosts.

    Attributes:
        hosts: by canonical name.
        max_age: for how long who follows the list keeps it without hearing of it again, in seconds. Hosts that were
            noted from a header keep the time that the header has set.
    """

    hosts: Mapping[str, ListedHost]
    max_age: int = _MAX_AGE

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", MappingProxyType(dict(sorted(self.hosts.items()))))

    def to_bytes(self) -> bytes:
        """The file: the same bytes for the same list."""
        hosts = {
            name: {"include_subdomains": listed.include_subdomains, "pins": [str(pin) for pin in listed.pins]}
            for name, listed in self.hosts.items()
        }
        return (json.dumps({"hosts": hosts, "max_age": self.max_age}, indent=1) + "\n").encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> PinList:
        """Read the file, strictly: a list that is wrong in one place is taken in none. Other members are ignored.

        Raises:
            InvalidPinFile: naming the host and what is wrong.
        """
        if len(data) > LONGEST_LIST:
            raise InvalidPinFile(f"the list has {len(data)} bytes, where {LONGEST_LIST} are the limit")
        try:
            loaded = json.loads(data.decode("utf-8"), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise InvalidPinFile(f"the list is not JSON: {error}") from None
        members = _object(loaded, "the list")
        max_age = members.get("max_age", _MAX_AGE)
        if not isinstance(max_age, int) or isinstance(max_age, bool) or not 0 < max_age <= 2**31:
            raise InvalidPinFile("max_age of the list is not a number of seconds from 1")
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
        raise InvalidPinFile(f"the list names a host that is none: {error}") from None
    if canonical != name or is_ip_literal(name):
        raise InvalidPinFile(f"the list names {name[:300]!r}, which is not the canonical name of a host")
    return name


def _listed(name: str, member: object) -> ListedHost:
    fields = _object(member, f"what the list says of {name[:300]!r}")
    covers, texts = fields.get("include_subdomains", False), fields.get("pins")
    if not isinstance(covers, bool):
        raise InvalidPinFile(f"include_subdomains of {name} is neither true nor false")
    if not isinstance(texts, list):
        raise InvalidPinFile(f"pins of {name} is not a list")
    pins: dict[Pin, None] = {}
    for text in cast("list[object]", texts):
        try:
            pins[Pin.from_base64(text if isinstance(text, str) else "")] = None
        except ValueError as error:
            raise InvalidPinFile(f"pins of {name}: {error}") from None
    if len(pins) > MAX_PINS:
        raise InvalidPinFile(f"{name} has {len(pins)} pins, where {MAX_PINS} are the limit")
    return ListedHost(tuple(pins), covers)
