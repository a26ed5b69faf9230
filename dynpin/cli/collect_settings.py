"""The settings of the collector: their meaning and their sources.

A flag wins over the environment (``DYNPIN_COLLECTOR_PORT``), and the environment wins over ``collector.toml``. Paths in
the file are relative to its folder.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from dynpin.errors import PolicyError
from dynpin.middleware.policy import Table, read_tables

__all__ = ["DEFAULT_FILE", "FLAGS", "PREFIX", "Settings", "Sourced", "described", "read_settings"]

PREFIX = "DYNPIN_COLLECTOR_"
DEFAULT_FILE = Path("collector.toml")
# CONFIG names the file. TOKEN is the token of programs that ask a collector, such as the ramp.
_NO_SETTINGS = ("CONFIG", "TOKEN")


def _path(value: object) -> object:
    return Path(_shown(value)) if isinstance(value, str) else value


def _shown(text: str) -> str:
    """A name of a file, in which everybody sees every character."""
    if not text.strip() or not text.isprintable():
        raise ValueError
    return text


def _address(value: object) -> object:
    if not isinstance(value, str) or not _shown(value):
        return value
    from dynpin.middleware.collector.storage import address_of  # noqa: PLC0415 - needed only if the setting is used

    try:
        return address_of(value)
    except ValueError:
        return value  # neither a server nor a file; whatever opens the storage says so, without the password


File = Annotated[Path, BeforeValidator(_path)]
Storage = Annotated[str | Path, BeforeValidator(_address)]
Port = Annotated[int, Field(ge=0, le=65535)]
# Upper limits that no machine reaches. Without them, a huge number would end in a traceback.
Number = Annotated[int, Field(ge=1, le=10**9)]
Days = Annotated[float, Field(ge=1, le=36_500)]
# A deadline must not be longer than this (seconds).
Seconds = Annotated[float, Field(gt=0, le=600)]
Digest = Literal["daily", "weekly"]
Part = Literal["intake", "worker", "web"]


def _about(text: str, default: object = None, *, example: object, secret: bool = False) -> Any:  # noqa: ANN401
    # No message shows the value of a field with repr=False.
    return Field(default=default, description=text, examples=[example], repr=not secret)


class Settings(Table):
    """All settings of ``collector.toml``."""

    host: Annotated[str, Field(min_length=1)] = _about(
        "the address to listen on, such as 0.0.0.0", "127.0.0.1", example="10.0.0.5"
    )
    port: Port = _about("the port to listen on; 0 takes a free one", 8080, example=8470)
    storage: Storage = _about(
        "where reports are kept: an SQLite file, or postgresql://USER@HOST/DATABASE",
        Path("reports.sqlite"),
        example="postgresql://dynpin@10.0.0.8/dynpin",
        secret=True,
    )
    parts: list[Part] = _about(
        "what this process does: intake, worker, web", ["intake", "worker", "web"], example=["intake"]
    )
    tokens: list[str] = _about("tokens of report-uris, in addition to those in the storage", [], example=["shop"])
    password: str | None = _about(
        "the password for people: the text or its argon2 hash", example="correct horse battery staple", secret=True
    )
    user_header: str | None = _about(
        "the header in which a trusted proxy names the signed-in user", example="X-Remote-User"
    )
    trusted_proxies: list[str] = _about(
        "proxies whose X-Forwarded-For, X-Forwarded-Proto and user header are trusted: networks, addresses, unix",
        [],
        example=["10.0.0.0/8", "unix"],
    )
    open_access: bool = _about("let everyone who reaches the address read the reports", default=False, example=True)
    public_url: str = _about(
        "the address of the collector for people and clients, such as https://pins.example",
        "",
        example="https://pins.example",
    )
    keys: list[File] = _about(
        "your certificates and keys, so that triage knows them", [], example=["tls/fullchain.pem"]
    )
    inventories: list[str] = _about(
        "your dynpin.toml, so that triage knows its keys and roots; TOKEN=FILE for the keys of only one policy",
        [],
        example=["dynpin.toml", "shop=shop.toml"],
    )
    roots: File | None = _about("your own root certificates, PEM, so that triage knows your CA", example="tls/ca.pem")
    alerts: list[str] = _about(
        "Apprise URLs for alerts on new groups and sudden rises",
        [],
        example=["mailto://alerts@example.com"],
        secret=True,
    )
    digest: Digest | None = _about("how often the channels of alerts get a summary: daily or weekly", example="daily")
    keep_days: Days = _about("how many days reports are kept, from 1 to 36500", 90.0, example=30.0)
    keep_megabytes: Number = _about(
        "how many MiB of reports are kept in total, from 1 to 1000000000", 1024, example=4096
    )
    source_address: str = _about(
        "how much of a client's address is stored, and counts as one source: whole, /24 or /24,/48",
        "/24,/48",
        example="whole",
    )
    limit_source: Number = _about(
        "how many reports an hour may come from one source, from 1 to 1000000000", 1_000, example=5_000
    )
    limit_token: Number = _about(
        "how many reports an hour may come for one token, from 1 to 1000000000", 20_000, example=50_000
    )
    limit_all: Number = _about(
        "how many reports an hour one process accepts in total, from 1 to 1000000000", 100_000, example=500_000
    )
    connections: Number = _about("how many connections may be open at once, from 1 to 1000000000", 800, example=2_000)
    connections_source: Number = _about(
        "how many of them may come from one source, from 1 to 1000000000; trusted proxies have no limit",
        400,
        example=1_000,
    )
    head_seconds: Seconds = _about("how many seconds the head of a request may take, 600 at most", 10.0, example=5.0)
    body_seconds: Seconds = _about("how many seconds the body of a request may take, 600 at most", 10.0, example=30.0)
    tls_certificate: File | None = _about("the certificate chain, PEM, for https", example="tls/fullchain.pem")
    tls_key: File | None = _about("its private key, PEM, without a passphrase", example="tls/privkey.pem")


# A repeatable flag has a name in the singular.
FLAGS = {name: f"--{name.replace('_', '-')}" for name in Settings.model_fields} | {
    "parts": "--part",
    "tokens": "--token",
    "trusted_proxies": "--trusted-proxy",
    "keys": "--key",
    "inventories": "--inventory",
    "alerts": "--alert",
}


def described(name: str) -> str:
    """The description of a setting, for the help of its flag."""
    field = Settings.model_fields[name]
    text = f"{field.description}".removesuffix(".")
    default = field.default
    shown = "" if default in (None, [], "") or isinstance(default, bool | list) else f" The default is {default}."
    return f"{text[0].upper()}{text[1:]}.{shown}"


@dataclass(frozen=True, slots=True)
class Sourced:
    """The settings, and the source of each: ``default``, the file, a variable or a flag."""

    settings: Settings
    sources: Mapping[str, str]


def read_settings(flags: Mapping[str, object], file: Path | None, environment: Mapping[str, str]) -> Sourced:
    """Read the settings from all sources.

    Args:
        flags: the values of the flags that were used, by the names of the settings.
        file: ``--config``; or else the file that the environment names, or ``collector.toml`` in this folder.
        environment: the environment variables.

    Raises:
        PolicyError: if a file cannot be read or a value is not valid; the message names file, variable or flag.
    """
    values: dict[str, object] = {}
    sources = dict.fromkeys(Settings.model_fields, "default")
    named = file or (Path(environment[f"{PREFIX}CONFIG"]) if environment.get(f"{PREFIX}CONFIG") else None)
    if named is not None or DEFAULT_FILE.exists():
        path = named or DEFAULT_FILE
        table = read_tables(path, Settings)
        for name in table.model_fields_set:
            values[name] = _from_folder(name, getattr(table, name), path.parent)
            sources[name] = str(path)
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable.removeprefix(PREFIX) in _NO_SETTINGS:
            continue
        name = _setting(variable)
        values[name] = _read(name, _listed(text) if _is_list(name) else text, variable)
        sources[name] = variable
    for name, value in flags.items():
        values[name] = _read(name, value, FLAGS[name])
        sources[name] = FLAGS[name]
    return Sourced(Settings.model_construct(None, **values), sources)


def _setting(variable: str) -> str:
    name = variable.removeprefix(PREFIX).lower()
    if name not in Settings.model_fields:
        close = difflib.get_close_matches(name, Settings.model_fields, n=1)
        known = ", ".join(f"{PREFIX}{one.upper()}" for one in (close or Settings.model_fields))
        raise PolicyError(f"{variable} is not a setting; {'did you mean' if close else 'the settings are'} {known}")
    return name


def _is_list(name: str) -> bool:
    return isinstance(Settings.model_fields[name].default, list)


def _listed(text: str) -> list[str]:
    return [one for one in re.split(r"[,\s]+", text) if one] if text else []


def _read(name: str, value: object, source: str) -> object:
    """The value of an environment variable, which is text, or of a flag."""
    field = Settings.model_fields[name]
    adapter: TypeAdapter[object] = TypeAdapter(_annotation(field))
    try:
        return adapter.validate_python(value)
    except ValidationError:
        shown = cast("list[object]", value) if isinstance(value, list) else str(value)
        equals = f" = {shown!r}" if field.repr else ""
        raise PolicyError(f"{source}{equals} is not understood: it is {field.description}") from None


def _annotation(field: FieldInfo) -> Any:  # noqa: ANN401 - a type with its constraints
    kind: Any = field.annotation
    for one in field.metadata:
        kind = Annotated[kind, one]
    return kind


def _from_folder(name: str, value: object, folder: Path) -> object:
    """A path of the file, relative to the folder of the file."""
    if isinstance(value, Path):
        return folder / value
    if name == "keys":
        return [folder / one for one in cast("list[Path]", value)]
    if name == "inventories":
        parts = [one.rpartition("=") for one in cast("list[str]", value)]
        return [f"{token}{equals}{folder / path}" for token, equals, path in parts]
    return value
