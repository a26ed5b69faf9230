"""dynpin.toml: one file that describes a site, read strictly and followed as it changes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from starlette.applications import Starlette

from dynpin import Pin, PolicyError
from dynpin.middleware import Policy, PublicKeyPinsMiddleware, PublicKeyPinsWSGIMiddleware
from dynpin.middleware.policy import read_inventory
from dynpin.middleware.policy.watching import Watcher
from tests.deploy.commands import dynpin
from tests.middleware.conftest import HOST, REPORTS, Connect, Site, serving_asgi

SOUND = """
hosts = ["bank.test"]
keys = ["tls/fullchain.pem"]
backups = ["tls/backup.pub"]

[policy]
max_age = 3600
"""


@pytest.fixture
def inventory(site: Site) -> Path:
    """A sound inventory beside the folder of the key files."""
    file = site.folder.parent / "dynpin.toml"
    file.write_text(SOUND)
    return file


def test_the_least_that_describes_a_site(inventory: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # Paths count from the folder of the file, wherever the server was started.
    monkeypatch.chdir("/")
    assert str(Policy.from_inventory(inventory).header) == site.expected()
    found = read_inventory(str(inventory))
    assert (found.path, found.hosts) == (inventory, (HOST,))
    assert found.keys == (site.chain,)


@pytest.mark.parametrize("named", ['"192.0.2.1", "bank.test"', '"[2001:db8::1]", "bank.test"'])
def test_the_name_of_a_site_is_one_that_clients_pin(named: str, inventory: Path) -> None:
    inventory.write_text(SOUND.replace('"bank.test"', named))
    assert read_inventory(inventory).host == HOST
    site = replace(read_inventory(inventory), hosts=("*.bank.test", HOST))
    assert (site.host, site.label) == (HOST, HOST)
    site = replace(site, hosts=site.hosts[:1])
    assert (site.host, site.label) == (None, "*.bank.test")
    recorded = dynpin("rotate", "record", "--inventory", str(inventory), "--history", str(inventory.with_name("h")))
    assert "events of bank.test" in recorded.stdout, recorded.output


def test_messages_call_an_option_as_the_file_has_it(inventory: Path) -> None:
    name = read_inventory(inventory).options.name
    assert (name("max_age"), name("allow_long_max_age")) == ("[policy] max_age", "[policy] allow_long_max_age")
    assert (name("hosts"), name("pinned")) == ("hosts", "pinned")


def test_a_byte_order_mark_is_no_part_of_it(inventory: Path, site: Site) -> None:
    inventory.write_text(SOUND, encoding="utf-8-sig")
    assert str(Policy.from_inventory(inventory).header) == site.expected()


def test_what_was_sent_is_remembered_beside_it(
    inventory: Path, site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory.write_text('remember = "sent"' + SOUND)
    monkeypatch.chdir("/")
    sent = site.expected()
    assert str(Policy.from_inventory(inventory).header) == sent
    assert (inventory.parent / "sent").read_text() == f"Public-Key-Pins: {sent}\n"
    site.deploy(site.issue())
    assert Policy.from_inventory(inventory).header is None
    assert "locked out until their pins expire" in caplog.text


def test_it_is_followed_when_the_server_leaves_its_folder(
    inventory: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inventory.parent)
    policy = Policy.from_inventory("dynpin.toml")
    assert read_inventory("dynpin.toml").path == inventory
    monkeypatch.chdir("/")
    inventory.write_text(SOUND.replace("3600", "60"))
    assert policy.refresh()
    assert str(policy.header) == site.expected("max-age=60")


def test_everything_that_can_be_said(inventory: Path, site: Site) -> None:
    inventory.write_text(
        f"""
        hosts = ["bank.test"]
        roots = "tls/fullchain.pem"
        keys = "tls/fullchain.pem"
        backups = ["tls/backup.pub", {{ pin = "{Pin(b"x" * 32)}" }}]
        pinned = "chain"
        [policy]
        mode = "enforce"
        max_age = "90 days"
        include_subdomains = true
        report_uri = "{REPORTS}"
        allow_long_max_age = true
        """
    )
    first, backup = site.pins
    header = f'pin-sha256="{first}"; pin-sha256="{backup}"; pin-sha256="{Pin(b"x" * 32)}"; max-age=7776000; '
    header += f'includeSubDomains; report-uri="{REPORTS}"'
    assert str(Policy.from_inventory(inventory).header) == header


DURATIONS = {
    "60": 60,
    '"1 second"': 1,
    '"90 minutes"': 5400,
    '"12 Hours"': 43_200,
    '"30days"': 2_592_000,
    '"2 weeks"': 1_209_600,
}


@pytest.mark.parametrize(("written", "seconds"), DURATIONS.items())
def test_durations(written: str, seconds: int, inventory: Path) -> None:
    inventory.write_text(SOUND.replace("3600", written))
    header = Policy.from_inventory(inventory).header
    assert header is not None
    assert header.max_age == seconds


def replacing(old: str, new: str) -> Callable[[Site], str]:
    assert old in SOUND
    return lambda site: SOUND.replace(old, new)


def ramped(line: str) -> Callable[[Site], str]:
    return lambda site: f'{SOUND}report_uri = "{REPORTS}/enforce"\n[ramp]\n{line}\n'


def der_of_the_key(site: Site) -> str:
    (site.folder / "key.der").write_bytes(
        load_pem_private_key(site.key.read_bytes(), None).private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
        )
    )
    return SOUND.replace("backup.pub", "key.der")


def a_pipe(site: Site) -> str:
    os.mkfifo(site.folder / "backup.pipe")
    return SOUND.replace("backup.pub", "backup.pipe")


# The text of the file, and what the message must say after its name: which key, what is wrong, and what next.
REFUSED: dict[str, tuple[Callable[[Site], str], list[str]]] = {
    "no TOML": (lambda site: "hosts = x", ["is not a TOML file", "line 1, column"]),
    "not UTF-8": (lambda site: "# \udcff", ["is not a TOML file: it is not UTF-8 text (byte 3)"]),
    "a table twice": (lambda site: f"{SOUND}[policy]\n", ["is not a TOML file: Cannot declare [policy] twice"]),
    "a table within a value": (
        lambda site: f"site = {{ nodes = [] }}\n[site.nodes]\n{SOUND}",
        ["is not a TOML file: Cannot declare [site.nodes]"],
    ),
    "nested": (lambda site: f"x = {'[' * 5000}{']' * 5000}", ["is not a TOML file: it is nested too deeply"]),
    "a file without a name": (lambda site: f'remember = " "\n{SOUND}', ['remember = " " is not understood', "a path"]),
    "a file of no name": (ramped('state = "a\\u0000"'), ["[ramp] state =", "is not understood: give a path"]),
    "hosts missing": (replacing("hosts", "#"), ["hosts is missing", 'hosts = ["www.example.com"]']),
    "keys missing": (replacing("keys", "#"), ["keys is missing", 'keys = ["tls/fullchain.pem"]']),
    "backups missing": (replacing("backups", "#"), ["backups is missing", "offline/backup.pub"]),
    "hosts of numbers": (replacing('["bank.test"]', "[7]"), ["hosts = [7] is not understood", "www.example.com"]),
    "hosts as a number": (replacing('["bank.test"]', "3"), ["hosts = 3 is not understood"]),
    "nodes of no form": (lambda site: f'{SOUND}[site]\nnodes = ["10.0.0.5"]\n', ["[site] nodes", "'10.0.0.5'"]),
    "a node as a number": (lambda site: f"{SOUND}[site]\nnodes = [7]\n", ["[site] nodes = [7] is not understood"]),
    "a misspelt key": (replacing("backups", "backup"), ["backup is not known here; did you mean backups?"]),
    "a hyphen": (replacing("max_age", "max-age"), ["[policy] max-age is not known here; did you mean max_age?"]),
    "an unknown key": (
        replacing("max_age", "colour"),
        ["[policy] colour is not known here; the known keys are mode, max_age"],
    ),
    "a misspelt table": (replacing("[policy]", "[polcy]"), ["polcy is not known here; did you mean policy?"]),
    "policy is not a table": (replacing("[policy]\nmax_age", "policy"), ["policy = 3600", "a table, [policy]"]),
    "a duration in words": (replacing("3600", '"a month"'), ['[policy] max_age = "a month"', '"30 days"']),
    "a duration of truth": (replacing("3600", "true"), ["[policy] max_age = true is not understood"]),
    "a duration too long": (replacing("3600", '"61 days"'), ["61 days", "allow_long_max_age"]),
    "no duration": (replacing("max_age = 3600", ""), ["[policy] max_age is missing", 'max_age = "30 days"']),
    "truth in quotes": (
        replacing("3600", '3600\ninclude_subdomains = "false"'),
        ['[policy] include_subdomains = "false"', "without quotes"],
    ),
    "a mode": (replacing("3600", '3600\nmode = "on"'), ['[policy] mode = "on"', 'or "unpin"']),
    "a report_uri of no kind": (replacing("3600", "3600\nreport_uri = 1"), ["[policy] report_uri = 1", "quotes"]),
    "reports to itself": (
        replacing("3600", '3600\nreport_uri = "https://bank.test/"'),
        ["report_uri https://bank.test/ is on the pinned host bank.test (of hosts)"],
    ),
    "pinned": (replacing("[policy]", 'pinned = "root"\n[policy]'), ['pinned = "root"', "counted from the leaf"]),
    "pinned number": (replacing("[policy]", "pinned = [9]\n[policy]"), ["pinned = [9]", "has no certificate 9"]),
    "an absent chain": (replacing("fullchain", "chain"), ["chain.pem cannot be read"]),
    "an absent backup": (replacing("backup.pub", "spare.pub"), ["spare.pub cannot be read"]),
    "the private half": (
        replacing("backup.pub", "key.pem"),
        ["backups names", "key.pem, a private key", "openssl pkey -in KEY -pubout"],
    ),
    "the private half, DER": (der_of_the_key, ["backups names", "key.der, a private key"]),
    "a backup that is a pipe": (a_pipe, ["backup.pipe", "nothing writes to this pipe"]),
    "a pin that is none": (replacing('"tls/backup.pub"', '{ pin = "abc" }'), ["backups has a pin that is not valid"]),
    "a key of no kind": (replacing('"tls/backup.pub"', "{ file = 1 }"), ["backups = [{ file = 1 }]", "{ pin ="]),
    "PEM in the file": (
        replacing('"tls/backup.pub"', "'''-----BEGIN PUBLIC KEY-----'''"),
        ['backups = ["-----BEGIN', "is not understood"],
    ),
    "the chain as its own backup": (replacing("backup.pub", "fullchain.pem"), ["all Backup Pins are in"]),
    "a ramp without reports": (
        lambda site: f"{SOUND}[ramp]\n",
        ["[ramp] needs the reports of clients", "https://reports.example.net/r/TOKEN/enforce"],
    ),
    "a ramp with reports to another": (
        lambda site: f'{SOUND}report_uri = "https://reports.example.net/hpkp"\n[ramp]\n',
        ["must be that of a dynpin collector"],
    ),
    "a ramp misspelt": (ramped("step = []"), ["[ramp] step is not known here; did you mean steps?"]),
    "a ramp that is none": (lambda site: f"ramp = 1\n{SOUND}", ["ramp = 1 is not understood: give a table, [ramp]"]),
    **{
        f"a collector at {text}": (ramped(f'collector = "{text}"'), [f'[ramp] collector = "{text}"', "https://"])
        for text in ("reports", "https://a:b@reports.test", "https://reports.test/?x", "https://reports.test:99999")
    },
    "steps of no kind": (ramped('steps = ["1 day"]'), ['[ramp] steps = ["1 day"]', 'send = "report-only"']),
    "steps downwards": (
        ramped('steps = [{ send = "2 hours", for = "1 day" }, { send = "1 hour", for = "1 day" }]'),
        ["[ramp] steps do not go upwards"],
    ),
    "report-only in between": (
        ramped('steps = [{ send = 60, for = 60 }, { send = "report-only", for = "1 day" }]'),
        ["[ramp] steps do not go upwards"],
    ),
    "a step for ever": (ramped('steps = [{ send = "1 hour" }]'), ["[ramp.steps] for is missing"]),
    "a step for no time": (ramped('steps = [{ send = "1 hour", for = 0 }]'), ["[ramp.steps] for = 0", '"7 days"']),
    "a step that sends a word": (
        ramped('steps = [{ send = "report", for = 60 }]'),
        ['[ramp.steps] send = "report" is not understood'],
    ),
    "no backups": (replacing('["tls/backup.pub"]', "[]"), ["there is no Backup Pin"]),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(text: Callable[[Site], str], words: list[str], inventory: Path, site: Site) -> None:
    inventory.write_bytes(text(site).encode("utf-8", "surrogateescape"))
    with pytest.raises(PolicyError) as refusal:
        Policy.from_inventory(inventory)
    assert str(refusal.value).startswith(str(inventory))
    assert not [word for word in words if word not in str(refusal.value)], str(refusal.value)


def test_a_ramp_as_it_is_written(inventory: Path, site: Site) -> None:
    inventory.write_text(SOUND.replace("3600", '"1 day"') + f'report_uri = "{REPORTS}/enforce"\n[ramp]\n')
    ramp = read_inventory(inventory).ramp
    assert ramp is not None
    # Of the usual steps those below the target.
    assert ramp.levels == (None, 300, 3600, 86_400)
    assert (ramp.collector, ramp.token, ramp.target) == ("https://reports.example.net", "1", 86_400)
    assert (ramp.state, ramp.token_file, ramp.ca) == (inventory.with_name("dynpin-ramp.sqlite"), None, None)
    told = 'collector = "http://10.0.0.7:8080/"\nstate = "var/ramp"\ntoken_file = "secret"\nca = "ca.pem"\n'
    inventory.write_text(ramped(told + 'steps = [{ send = "5 minutes", for = "1 day" }]')(site))
    ramp = read_inventory(inventory).ramp
    assert ramp is not None
    assert ramp.levels == (300, 3600)
    assert (ramp.collector, ramp.state) == ("http://10.0.0.7:8080", inventory.parent / "var" / "ramp")
    assert (ramp.token_file, ramp.ca) == (inventory.parent / "secret", inventory.parent / "ca.pem")


def test_an_absent_inventory(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"absent\.toml cannot be read"):
        Policy.from_inventory(tmp_path / "absent.toml")
    with pytest.raises(PolicyError, match="'ignore' is not known"):
        Policy.from_inventory(tmp_path / "absent.toml", on_invalid="ignore")  # type: ignore[arg-type] # that is the test


def test_a_rotation_is_one_edit(inventory: Path, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    spare = site.issue()
    site.back_up(spare)
    watcher = Watcher(interval=3600)
    policy = Policy.from_inventory(inventory)
    watcher.add(policy)
    old = policy.header
    # The files of the next stage are laid out beside the old ones, and nothing of them is looked at...
    following = Site(site.folder.parent / "next", site.authority)
    following.deploy(spare)
    watcher.look()
    watcher.look()
    assert policy.header == old
    # ... until the inventory names them, chain and backup together.
    inventory.write_text(SOUND.replace("tls/", "next/"))
    watcher.look()
    watcher.look()
    assert str(policy.header) == following.expected()
    # From then on they are the ones that are followed.
    following.back_up(site.issue())
    watcher.look()
    watcher.look()
    assert str(policy.header) == following.expected()
    assert not caplog.records
    watcher.before_fork()


@pytest.mark.parametrize(
    "text",
    [
        "hosts = [",
        SOUND.replace("backup.pub", "absent.pub"),
        SOUND.replace("3600", '"999999999 weeks"'),
        f"x = {'[' * 5000}{']' * 5000}",
    ],
    ids=["no TOML", "a missing file", "longer than a calendar", "nested"],
)
def test_a_bad_edit_keeps_the_last_good_header(
    text: str, inventory: Path, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Watcher(interval=3600)
    policy = Policy.from_inventory(inventory)
    watcher.add(policy)
    inventory.write_text(text)
    for _ in range(4):
        watcher.look()
    assert str(policy.header) == site.expected()
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert str(inventory) in record.getMessage()
    inventory.write_text(SOUND.replace("3600", "60"))
    watcher.look()
    watcher.look()
    assert str(policy.header) == site.expected("max-age=60")
    watcher.before_fork()


def test_the_mode_may_change_while_the_server_runs(inventory: Path, site: Site) -> None:
    policy = Policy.from_inventory(inventory)
    inventory.write_text(SOUND.replace("3600", f'3600\nmode = "report-only"\nreport_uri = "{REPORTS}"'))
    assert policy.refresh()
    assert policy.field == (b"public-key-pins-report-only", site.expected(f'report-uri="{REPORTS}"').encode())
    assert policy.mode == "report-only"


def test_silence_waits_for_the_file(inventory: Path, site: Site) -> None:
    inventory.unlink()
    policy = Policy.from_inventory(inventory, on_invalid="silence")
    assert (policy.header, policy.mode) == (None, None)
    inventory.write_text(SOUND)
    assert policy.refresh()
    assert str(policy.header) == site.expected()


def test_the_middleware_takes_the_file(inventory: Path, site: Site, connect: Connect) -> None:
    trial = inventory.with_name("trial.toml")
    trial.write_text(SOUND.replace("3600", f'0\nmode = "report-only"\nreport_uri = "{REPORTS}"'))
    app = Starlette()
    app.add_middleware(PublicKeyPinsMiddleware, policy=inventory, report_only=str(trial))
    headers = connect(serving_asgi, app, site).get("/").headers
    assert headers["public-key-pins"] == site.expected()
    assert headers["public-key-pins-report-only"] == site.expected(f'report-uri="{REPORTS}"')
    wsgi = PublicKeyPinsWSGIMiddleware(lambda environ, start_response: [], str(inventory))
    assert [policy.text_field for policy in wsgi.policies] == [("Public-Key-Pins", site.expected())]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "absent.toml"}, r"absent\.toml cannot be read"),
        ({"policy": "dynpin.toml", "max_age": 60}, r"there is a policy and also keywords \(max_age\)"),
        ({"policy": "dynpin.toml", "report_only": "dynpin.toml"}, "this one has mode='enforce'"),
    ],
)
def test_what_the_middleware_refuses(
    options: dict[str, Any], words: str, inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inventory.parent)
    with pytest.raises(PolicyError, match=words):
        PublicKeyPinsWSGIMiddleware(lambda environ, start_response: [], **options)


def test_the_middleware_may_start_in_silence(inventory: Path) -> None:
    inventory.write_text("")
    [policy] = PublicKeyPinsWSGIMiddleware(lambda environ, start: [], inventory, on_invalid="silence").policies
    assert policy.header is None
