"""Known facts about the deployment that sends a header."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from dynpin.errors import UnpinnableKey
from dynpin.pins import Pin

from .faults import Severity, catalogue

__all__ = ["Circumstances", "Observed"]

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----(?:\r?\n)?", re.DOTALL)


class Observed(NamedTuple):
    """A fault that was found elsewhere: its name in the catalogue, what is wrong, and its severity here."""

    fault: str
    reason: str
    severity: Severity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """The circumstances of one header. Any of them may be unknown (None or empty).

    Pins are base64 texts, since a circumstance may name a malformed one.

    Attributes:
        scheme: ``"https"`` or ``"http"``, as the client saw it; `app_scheme` is what the application saw.
        chain_valid: whether the TLS connection had no errors; `chain_failure` describes the error.
        host: the host that sent the header.
        chain_pins: the pins of the chain, leaf first; `served_chain_pins` is what the server sent,
            `validated_chain_pins` what a client built, `origin_chain_pins` those of the server behind a proxy.
        chain_root: ``"private CA"`` or another word for where the root comes from.
        certificates: PEM certificates of the chain, leaf first.
        leaf_not_after_in_s: seconds until the leaf expires.
        intent: ``"pin"``, ``"report-only"``, or ``"unpin"`` if max-age=0 is intended.
        config: the settings of the library that made the header: `report_only`, `enforce`, `mode`, `report_uri`.
        previous_name: the name of the header field that was sent before an upgrade.
        also: other header fields of the same response; `fields` are all values of this field, in order.
        paths: the value for each path, None if it is missing; `nodes` the values of several servers, `visits` those
            of several visitors.
        subdomain_chain_pins: the chain of each subdomain.
        cookie_domain: the Domain of the cookies that the site sets.
        script_hosts: the hosts that pages load scripts from.
        previous_header: the value that was sent before, `previous_header_age_s` seconds ago.
        deployed_key: the pin of the key that is about to be deployed.
        held_keys: the pins of all keys that the operator has: the inventory.
        backup_key_path: the path of the backup key's private half on the server.
        report_uri_status: the result of a probe of report-uri: an HTTP status, or the failure in words.
        clients: the clients that the policy is for, such as ``"Chrome 120"`` or a User-Agent.
        ramp_steps: the max-ages, in seconds, of the steps of a ramp.
        observed: faults that the linter itself cannot see, in files or on the network.
    """

    scheme: str | None = None
    app_scheme: str | None = None
    chain_valid: bool | None = None
    chain_failure: str | None = None
    host: str | None = None
    chain_pins: tuple[str, ...] = ()
    served_chain_pins: tuple[str, ...] = ()
    validated_chain_pins: tuple[str, ...] = ()
    origin_chain_pins: tuple[str, ...] = ()
    chain_root: str | None = None
    certificates: tuple[str, ...] = ()
    leaf_not_after_in_s: float | None = None
    intent: str = "pin"
    config: Mapping[str, object] | None = None
    previous_name: str | None = None
    also: Mapping[str, str] = field(default_factory=dict[str, str])
    fields: tuple[str, ...] = ()
    paths: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    nodes: tuple[str, ...] = ()
    visits: tuple[str, ...] = ()
    subdomain_chain_pins: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    cookie_domain: str | None = None
    script_hosts: tuple[str, ...] = ()
    previous_header: str | None = None
    previous_header_age_s: float = 0
    deployed_key: str | None = None
    held_keys: tuple[str, ...] | None = None
    backup_key_path: str | None = None
    report_uri_status: str | None = None
    clients: tuple[str, ...] = ()
    ramp_steps: tuple[int, ...] = ()
    observed: tuple[Observed, ...] = ()

    @property
    def chain(self) -> tuple[str, ...]:
        """The pins of the chain that clients validate; empty if it is unknown."""
        return self.validated_chain_pins or self.chain_pins

    @classmethod
    def from_json(cls, text: str | bytes) -> Circumstances:
        """Read circumstances from JSON: one object with these attributes as members. Other members are ignored.

        Raises:
            ValueError: if it is not a JSON object, or if a member has the wrong type.
        """
        try:
            loaded: object = json.loads(text)
        except RecursionError:
            raise ValueError("the JSON is nested too deeply") from None
        return cls.from_dict(loaded)

    @classmethod
    def from_dict(cls, loaded: object) -> Circumstances:
        """Read circumstances from decoded JSON; see :meth:`from_json`."""
        if not isinstance(loaded, dict):
            raise ValueError("the circumstances are one JSON object")  # noqa: TRY004 - it is input, not a caller's type
        members = _Members(cast("dict[str, object]", loaded))
        # Certificates are found anywhere in the JSON, so that other tools need not know this name.
        certificates = tuple(dict.fromkeys(_certificates(cast("object", loaded))))
        status = members.members.get("report_uri_status")
        return cls(
            scheme=members.text("scheme"),
            app_scheme=members.text("app_scheme"),
            chain_valid=members.flag("chain_valid"),
            chain_failure=members.text("chain_failure"),
            host=members.text("host"),
            chain_pins=members.pins("chain_pins") or tuple(_certificate_pins(certificates)),
            served_chain_pins=members.pins("served_chain_pins"),
            validated_chain_pins=members.pins("validated_chain_pins"),
            origin_chain_pins=members.pins("origin_chain_pins"),
            chain_root=members.text("chain_root"),
            certificates=certificates,
            leaf_not_after_in_s=members.number("leaf_not_after_in_s"),
            intent=members.text("intent") or "pin",
            config=members.mapping("config"),
            previous_name=members.text("previous_name"),
            also={name: value for name, value in members.values("also").items() if value},
            fields=members.texts("fields"),
            paths=members.values("paths"),
            nodes=members.texts("nodes"),
            visits=members.texts("visits"),
            subdomain_chain_pins=members.pins_by_host("subdomain_chain_pins"),
            cookie_domain=members.text("cookie_domain"),
            script_hosts=members.texts("script_hosts"),
            previous_header=members.text("previous_header"),
            previous_header_age_s=members.number("previous_header_age_s") or 0,
            deployed_key=next(iter(members.pins("deployed_key")), None),
            held_keys=members.pins("held_keys") if "held_keys" in members.members else None,
            backup_key_path=members.text("backup_key_path"),
            report_uri_status=None if status is None else str(status),
            clients=members.texts("clients"),
            ramp_steps=members.numbers("ramp_steps"),
            observed=members.observed("observed"),
        )


class _Members:
    """The members of the JSON object, each read with its type."""

    def __init__(self, members: dict[str, object]) -> None:
        self.members = members

    def text(self, name: str) -> str | None:
        value = self.members.get(name)
        if value is None or isinstance(value, str):
            return value
        raise ValueError(f"{name} is a text")

    def flag(self, name: str) -> bool | None:
        value = self.members.get(name)
        if value is None or isinstance(value, bool):
            return value
        raise ValueError(f"{name} is true or false")

    def number(self, name: str) -> float | None:
        value = self.members.get(name)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return value
        raise ValueError(f"{name} is a number")

    def numbers(self, name: str) -> tuple[int, ...]:
        value = self.members.get(name)
        items = cast("list[object]", value) if isinstance(value, list) else []
        if (value is not None and not isinstance(value, list)) or not all(type(item) is int for item in items):
            raise ValueError(f"{name} is a list of whole numbers")
        return tuple(item for item in items if isinstance(item, int))

    def observed(self, name: str) -> tuple[Observed, ...]:
        faults = self.mapping(name) or {}
        unknown = [fault for fault in faults if "{reason}" not in getattr(catalogue().get(fault), "message", "")]
        if unknown:
            raise ValueError(f"{name} names {unknown[0]!r}, which is not a fault that can be observed")
        reasons = _Members(dict(faults))
        return tuple(Observed(fault, reason) for fault in faults for reason in reasons.texts(fault))

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.members.get(name)
        if isinstance(value, str):
            return (value,)
        items = cast("list[object]", value) if isinstance(value, list) else None
        if value is not None and items is None:
            raise ValueError(f"{name} is a list of texts")
        found = [item for item in items or [] if item is not None]
        if not all(isinstance(item, str) for item in found):
            raise ValueError(f"{name} is a list of texts")
        return tuple(str(item) for item in found)

    def pins(self, name: str) -> tuple[str, ...]:
        return tuple(_canonical(text) for text in self.texts(name))

    def mapping(self, name: str) -> Mapping[str, object] | None:
        value = self.members.get(name)
        if value is None or isinstance(value, dict):
            return cast("dict[str, object] | None", value)
        raise ValueError(f"{name} is an object")

    def values(self, name: str) -> dict[str, str | None]:
        entries = self.mapping(name) or {}
        if not all(value is None or isinstance(value, str) for value in entries.values()):
            raise ValueError(f"{name} holds header values")
        return {key: None if value is None else str(value) for key, value in entries.items()}

    def pins_by_host(self, name: str) -> dict[str, tuple[str, ...]]:
        entries = dict(self.mapping(name) or {})
        return {host: _Members(entries).pins(host) for host in entries}


def _canonical(text: str) -> str:
    try:
        return str(Pin.from_base64(text))
    except ValueError:
        return text


def _certificates(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield from (found[0] for found in _CERTIFICATE.finditer(value))
    elif isinstance(value, dict):
        for item in cast("dict[object, object]", value).values():
            yield from _certificates(item)
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            yield from _certificates(item)


def _certificate_pins(certificates: tuple[str, ...]) -> Iterator[str]:
    for pem in certificates:
        try:
            yield str(Pin.from_certificate(pem))
        except UnpinnableKey:
            continue
