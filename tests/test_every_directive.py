"""Each directive is in every place that holds one. A forgotten place fails here, with the name of the directive."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import get_type_hints

import pytest

from dynpin import KnownPinnedHost, PublicKeyPins
from dynpin.clientstore import PinStore
from dynpin.clientstore.store.formats import (
    read_csv,
    read_json,
    read_jsonl,
    read_toml,
    write_csv,
    write_json,
    write_jsonl,
    write_toml,
)
from dynpin.deploy.lint import lint
from dynpin.header import DIRECTIVE_NAMES
from dynpin.middleware.policy import Inventory, Policy, PolicyOptions
from dynpin.noting import note
from dynpin.recovery import NotedRecovery

from .deploy.commands import dynpin
from .headers import DIRECTIVES, FULL, ONE

NOW = 1_800_000_000.0
# Those that clients keep under the same name. max-age becomes the expiry.
KEPT = [name for name in DIRECTIVES if name != "max_age"]


def _noted() -> KnownPinnedHost:
    noted = note("bank.test", None, FULL, [ONE], NOW).known_host
    assert noted is not None
    return noted


NOTED = replace(_noted(), origin="pins.json")
STATIC = replace(
    NOTED, source="static", certificates=(bytes(32),), on_expiry="refuse", origin="pins.toml", recovery=None
)


def test_the_examples_have_a_value_in_every_field() -> None:
    for name in DIRECTIVES:
        assert getattr(FULL, name) not in (None, False), f"give {name} a value in tests/headers.py"
    for field in fields(KnownPinnedHost):
        values = [getattr(entry, field.name) for entry in (NOTED, STATIC)]
        assert any(value not in (field.default, None, False, ()) for value in values) or field.default is MISSING, (
            f"give {field.name} a value in NOTED or STATIC"
        )


def test_the_text_has_every_directive_and_is_read_again() -> None:
    assert tuple(dict.fromkeys(part.partition("=")[0] for part in str(FULL).split("; "))) == DIRECTIVE_NAMES
    assert PublicKeyPins.parse(str(FULL)) == FULL


@pytest.mark.parametrize("name", KEPT)
def test_clients_note_it_and_forget_it_with_the_pins(name: str) -> None:
    if name == "recovery":  # its root outlives the pins: tests/test_recovery.py
        assert NOTED.recovery == NotedRecovery(FULL.recovery)
        return
    assert getattr(NOTED, name) == getattr(FULL, name)
    remains = note("bank.test", NOTED, replace(FULL, max_age=0), [ONE], NOW).remains
    assert remains is not None
    assert not getattr(remains, name)


@pytest.mark.parametrize("entry", [NOTED, STATIC], ids=["noted", "static"])
def test_the_store_keeps_every_field(entry: KnownPinnedHost, tmp_path: Path) -> None:
    for _ in range(2):
        with PinStore(tmp_path / "pins", clock=lambda: NOW) as store:
            store.merge([entry])
    with PinStore(tmp_path / "pins", clock=lambda: NOW) as store:
        assert store.known_host("bank.test") == entry


@pytest.mark.parametrize(
    ("write", "read", "entries"),
    [
        (write_json, read_json, (NOTED, STATIC)),
        (write_jsonl, read_jsonl, (NOTED, STATIC)),
        (write_csv, read_csv, (replace(NOTED, recovery=None), STATIC)),
        (write_toml, read_toml, (replace(STATIC, origin=None, noted_at=0.0),)),
    ],
    ids=["json", "jsonl", "csv", "toml"],
)
def test_a_file_has_every_field(
    write: Callable[..., Iterable[str]],
    read: Callable[..., Iterable[KnownPinnedHost]],
    entries: tuple[KnownPinnedHost, ...],
) -> None:
    for entry in entries:  # one by one: each has the same host
        lines = "".join(write([entry])).splitlines(keepends=True)
        assert [*read(lines, now=0.0)] == [entry]


@pytest.mark.parametrize("name", KEPT)
def test_hosts_show_shows_it(name: str, tmp_path: Path) -> None:
    with PinStore(tmp_path / "pins", clock=lambda: NOW) as store:
        store.merge([NOTED])
    shown = dynpin("hosts", "show", "bank.test", "--store", str(tmp_path / "pins")).stdout
    told = json.loads(dynpin("hosts", "show", "bank.test", "--json", "--store", str(tmp_path / "pins")).stdout)
    wanted = {"include_subdomains": "its subdomains", "recovery": "https://recovery.test/"}
    assert wanted.get(name, getattr(FULL, name)) in shown
    assert name in told or name == "recovery"


def test_a_policy_takes_every_directive_and_sends_it() -> None:
    options: dict[str, object] = {name: getattr(FULL, name) for name in DIRECTIVES} | {"hosts": ("bank.test",)}
    assert Inventory(keys=FULL.pins[:1], backups=FULL.pins[1:], **options).build().header == FULL  # type: ignore[arg-type]
    assert Policy(FULL.pins[0], FULL.pins[1], **options).header == FULL  # type: ignore[arg-type]
    taken = set(inspect.signature(Policy).parameters)
    assert get_type_hints(PolicyOptions).keys() == taken


def test_dynpin_toml_takes_every_directive(tmp_path: Path) -> None:
    file = tmp_path / "dynpin.toml"
    lines = [f"{name} = {json.dumps(getattr(FULL, name))}" for name in DIRECTIVES if name != "recovery"]
    keys, backups = (f'[{{ pin = "{pin}" }}]' for pin in FULL.pins)
    assert FULL.recovery is not None
    recovery = f'root = "{FULL.recovery.root_text}"\nuri = "{FULL.recovery.uri}"'
    begin = f'hosts = ["bank.test"]\nkeys = {keys}\nbackups = {backups}\n'
    file.write_text("\n".join([begin, "[policy]", *lines, "[recovery]", recovery]))
    assert Policy.from_inventory(file).header == FULL


def test_the_linter_knows_every_directive() -> None:
    assert "directive-unknown" not in [found.fault for found in lint(str(FULL))]
