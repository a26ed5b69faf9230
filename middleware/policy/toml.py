"""``dynpin.toml``: a site, its keys and its policy, in one file.

.. code-block:: toml

    hosts = ["www.example.com"]
    keys = ["tls/fullchain.pem"]                     # the deployed chain, as the server sends it
    backups = ["offline/backup.pub", "offline/next.csr"]
    remember = "dynpin-sent.txt"                     # the last header, for processes that start later

    [policy]
    max_age = "30 days"
    report_uri = "https://reports.example.net/r/TOKEN/enforce"

    [ramp]                                           # max-age grows up to that while no reports come

    [site]
    nodes = ["10.0.0.5:443", "10.0.0.6:443"]         # the nodes behind a balancer; rotate and check look at each
    state = "https://reports.example.net"            # the collector that keeps their shared state

A rotation changes the chain and the backups in one edit of this file, so that the new chain never comes alone.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from dynpin.errors import InvalidHeader, InvalidHost, PolicyError
from dynpin.files import read_file
from dynpin.hosts import canonical_host
from dynpin.pins import Pin
from dynpin.recovery import Recovery

from .collector_api import CollectorAPI
from .host_names import name_of_site
from .inventory import Inventory
from .keys import KeySource, holds_private_key
from .node import Node
from .rules import Mode, OptionNames, Pinned
from .steps import DEFAULT_STEPS, REPORT_URI, Ramp, Step
from .tables import Seconds, Table, read_tables, seconds_of

if TYPE_CHECKING:
    from .shared import StateSource

__all__ = ["read_inventory"]

_DURATION = 'seconds, or a text such as "30 days", "12 hours" or "90 minutes"'
_STEPS = 'tables such as { send = "report-only", for = "7 days" }, { send = "1 hour", for = "2 days" }, upwards'


# If a validator raises without a text, the message has the key's value and its description.


def _listed(value: object) -> object:
    """One value or several, as a list."""
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _source(value: object) -> KeySource:
    """One key: the path of its file, or its pin as ``{ pin = "…" }``."""
    if isinstance(value, str) and "-----BEGIN " not in value:
        return Path(value)
    if isinstance(value, dict) and [*value] == ["pin"] and isinstance(value["pin"], str):
        try:
            return Pin.from_base64(value["pin"])
        except ValueError as error:
            raise ValueError(f"has a pin that is not valid: {error}") from None
    raise ValueError


def _pins(value: object) -> Pinned:
    if isinstance(value, str) and value in {"leaf", "chain"}:
        return cast("Pinned", value)
    numbers = cast("list[object]", _listed(value))
    if all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        return cast("list[int]", numbers)
    raise ValueError


def _send(value: object) -> int | None:
    """The max-age of a step, in seconds; None for report-only."""
    if value == "report-only":
        return None
    seconds = seconds_of(value)
    if isinstance(seconds, int) and not isinstance(seconds, bool) and seconds > 0:
        return seconds
    raise ValueError


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError from None  # the message comes from the key's description
    # Paths are appended to it, and messages show it: it has no query, no fragment and no password.
    if not is_address or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError
    return text


def _file(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError
    return text


def _node(text: str) -> str:
    try:
        Node.parse(text)
    except ValueError as error:
        raise ValueError(f"is not understood: {error}") from None
    return text


def _node_name(text: str) -> str:
    if not _NODE_NAME.fullmatch(text):
        raise ValueError
    return text


_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_Source = Annotated[object, PlainValidator(_source)]
_Sources = Annotated[list[_Source], BeforeValidator(_listed)]
_Texts = Annotated[list[str], BeforeValidator(_listed)]
_File = Annotated[str, AfterValidator(_file)]


class _Policy(Table):
    """The fields of :class:`Inventory` that belong to [policy], under the same names."""

    mode: Mode = Field("enforce", description='"enforce" or "report-only" or "unpin"')
    max_age: Seconds | None = Field(None, description=_DURATION)
    include_subdomains: bool = Field(False, description="true or false, without quotes")
    report_uri: str | None = Field(None, description='a text in "quotes"')
    allow_long_max_age: bool = Field(False, description="true or false, without quotes")


class _Step(Table):
    send: Annotated[int | None, PlainValidator(_send)] = Field(description='"report-only", or a time such as "1 hour"')
    stay: Seconds = Field(alias="for", description='a time such as "7 days"', gt=0)


class _Ramp(Table):
    collector: Annotated[str, AfterValidator(_address)] | None = Field(
        None, description='the address of the collector, such as "https://reports.example.net"'
    )
    token_file: _File | None = Field(None, description='a path in "quotes"')
    ca: _File | None = Field(None, description='a path in "quotes"')
    state: _File | None = Field(None, description='a path in "quotes"')
    steps: list[_Step] | None = Field(None, description=_STEPS)


class _Site(Table):
    nodes: list[Annotated[str, AfterValidator(_node)]] = Field(
        default_factory=list[str], description='the nodes behind a balancer, such as ["10.0.0.5:443"]'
    )
    state: Annotated[str, AfterValidator(_address)] | None = Field(
        None, description='the address of the collector, such as "https://reports.example.net"'
    )
    token_file: _File | None = Field(None, description='a path in "quotes"')
    ca: _File | None = Field(None, description='a path in "quotes"')
    node: Annotated[str, AfterValidator(_node_name)] | None = Field(
        None, description='a name that only this node has: letters, digits, "-", "." and "_", at most 63'
    )
    copy_file: _File | None = Field(None, alias="copy", description='a path in "quotes"')


class _Recovery(Table):
    root: str = Field(description='the root of `dynpin recovery init`, 44 characters such as "d6qz…="')
    uri: str = Field(description='the folder of the published files, such as "https://recovery.example.net"')


class _Tables(Table):
    hosts: _Texts = Field(min_length=1, description='the names of the site, such as hosts = ["www.example.com"]')
    keys: _Sources = Field(description='the chain that the server sends, such as keys = ["tls/fullchain.pem"]')
    backups: _Sources = Field(
        description='the backup keys, such as backups = ["offline/backup.pub"]; a bare pin is written as '
        '{ pin = "base64 of 32 bytes" }'
    )
    roots: _Texts = Field(
        default_factory=list[str], description='the roots of your own CA that clients trust, such as ["ca.pem"]'
    )
    pinned: Annotated[Pinned, PlainValidator(_pins)] = Field(
        "leaf", description='"leaf", "chain", or numbers of certificates, counted from the leaf, 0'
    )
    remember: _File | None = Field(None, description='a path in "quotes"')
    policy: _Policy = Field(default_factory=lambda: _Policy.model_validate({}), description="a table, [policy]")
    ramp: _Ramp | None = Field(None, description="a table, [ramp]")
    recovery: _Recovery | None = Field(None, description="a table, [recovery]")
    site: _Site = Field(default_factory=lambda: _Site.model_validate({}), description="a table, [site]")


def read_inventory(path: str | os.PathLike[str]) -> Inventory:
    """Read a ``dynpin.toml``. Its paths are relative to its folder. The key files are not read.

    Raises:
        PolicyError: if it cannot be read, or a value is not valid; the message names file, key and fix.
    """
    file = Path(path).absolute()
    read = read_tables(file, _Tables)
    try:
        return Inventory(
            path=file,
            options=OptionNames(frozenset(_Policy.model_fields)),
            hosts=tuple(read.hosts),
            keys=_located(file, read.keys),
            backups=_reserve(file, _located(file, read.backups)),
            roots=tuple(file.parent / each for each in read.roots),
            pinned=read.pinned,
            **dict(read.policy),
            recovery=None if read.recovery is None else _recovery(read.recovery),
            nodes=tuple(read.site.nodes),
            ramp=None if read.ramp is None else _ramp(file, read.ramp, read),
            remember=None if read.remember is None else file.parent / read.remember,
            state=None if read.site.state is None else _state(file, read),
        )
    except PolicyError as error:
        raise PolicyError(f"{file}: {error}") from None


def _state(file: Path, read: _Tables) -> StateSource:
    """The shared state of the nodes. Options that would keep the same state in a file are refused."""
    from .shared import StateSource  # noqa: PLC0415 - only a shared state needs it

    site = read.site
    if read.remember is not None:
        raise PolicyError("[site] state keeps the last header of all nodes: remove the line remember")
    if read.ramp is not None and read.ramp.state is not None:
        raise PolicyError("[site] state keeps the position on the ramp: remove the line state of [ramp]")
    name = name_of_site(read.hosts)
    if name is None:
        raise PolicyError("[site] state needs a name in hosts that is not a wildcard and not an IP address: add one")
    try:
        host = canonical_host(name)
    except InvalidHost as error:
        raise PolicyError(f"hosts: {error}") from None
    token_file, ca = (_located_file(file, getattr(site, name), read.ramp, name) for name in ("token_file", "ca"))
    name = site.node or os.environ.get("DYNPIN_NODE") or re.sub("[^A-Za-z0-9._-]", "-", socket.gethostname())[:63]
    if not _NODE_NAME.fullmatch(name):
        raise PolicyError(f'{name!r} is not a name of a node: give one in [site] node = "…" or DYNPIN_NODE')
    copy = file.parent / (site.copy_file or f"{file.stem}-site.json")
    return StateSource(CollectorAPI((site.state or "").rstrip("/"), token_file, ca), host, name, copy)


def _located_file(file: Path, own: str | None, ramp: _Ramp | None, name: str) -> Path | None:
    """A file of [site], or else of [ramp], so that both can use one token."""
    found = own or (None if ramp is None else cast("str | None", getattr(ramp, name)))
    return None if found is None else file.parent / found


def _recovery(table: _Recovery) -> Recovery:
    try:
        return Recovery.of_texts(table.root, table.uri)
    except InvalidHeader as error:
        raise PolicyError(f"[recovery]: {error.message}") from None


def _located(file: Path, sources: Iterable[object]) -> tuple[KeySource, ...]:
    """The keys, with paths relative to the folder of the file."""
    return tuple(file.parent / source if isinstance(source, Path) else cast("Pin", source) for source in sources)


def _reserve(file: Path, sources: Iterable[KeySource]) -> tuple[KeySource, ...]:
    found = tuple(sources)
    for source in found:
        if isinstance(source, Path) and _is_private(source):
            raise PolicyError(
                f"backups names {source}, a private key: somebody who breaks into this server gets it too. It is "
                "not a backup key. Keep it offline, and name its public half (openssl pkey -in KEY -pubout) or its CSR"
            )
    return found


def _is_private(path: Path) -> bool:
    try:
        return holds_private_key(read_file(path))
    except (OSError, ValueError):
        return False  # its readers report a file that cannot be read


def _ramp(file: Path, table: _Ramp, read: _Tables) -> Ramp:
    policy, site = read.policy, read.site
    token_file, ca = table.token_file or site.token_file, table.ca or site.ca
    known = REPORT_URI.fullmatch(policy.report_uri or "")
    if known is None:
        raise PolicyError(
            "[ramp] needs the reports of clients, so [policy] report_uri must be that of a dynpin collector, such as "
            '"https://reports.example.net/r/TOKEN/enforce"'
        )
    target = policy.max_age or 0
    steps = DEFAULT_STEPS if table.steps is None else _steps(table.steps)
    return Ramp(
        steps=tuple(step for step in steps if step.max_age is None or step.max_age < target),
        target=target,
        collector=(table.collector or known["collector"]).rstrip("/"),
        token=known["token"],
        report_uri=known[0],
        state=file.parent / (table.state or f"{file.stem}-ramp.sqlite"),
        token_file=None if token_file is None else file.parent / token_file,
        ca=None if ca is None else file.parent / ca,
        hosts=tuple(name.removeprefix("*.") for name in read.hosts),
        is_on=policy.mode == "enforce",
    )


def _steps(tables: Iterable[_Step]) -> tuple[Step, ...]:
    """The steps of a ramp, upwards."""
    steps: list[Step] = []
    for table in tables:
        step = Step(table.send, table.stay)
        if steps and (step.max_age is None or step.max_age <= (steps[-1].max_age or 0)):
            raise PolicyError(f"[ramp] steps do not go upwards: give {_STEPS}")
        steps.append(step)
    return tuple(steps)
