"""The operator's commands on one `dynpin.toml`, named or found in the folder."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from dynpin import Pin, PublicKeyPins
from dynpin.deploy.rotation import History
from tests.deploy.commands import dynpin
from tests.deploy.servers import Site, make_site
from tests.deploy.test_check import HOST, check, everywhere, faults, serving
from tests.deploy.test_rotation import NEW, OLD

MAX_AGE = 20 * 86_400


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A folder with a site's certificate and its inventory, in which the commands are run."""
    made = make_site(tmp_path / "tls", HOST)
    (tmp_path / "dynpin.toml").write_text(
        f'hosts = ["{HOST}"]\nkeys = ["tls/chain.pem"]\nbackups = [{{ pin = "{NEW}" }}]\n\n'
        '[policy]\nmax_age = "20 days"\n'
    )
    monkeypatch.chdir(tmp_path)
    return made


def header(site: Site) -> PublicKeyPins:
    return PublicKeyPins((Pin.from_file(site.chain), NEW), MAX_AGE)


def test_export_writes_the_header_of_the_inventory(site: Site) -> None:
    shown = dynpin("export", "nginx")
    assert shown.exit_code == 0
    assert str(header(site)) in shown.stdout
    assert "dynpin.toml" in shown.stderr  # a file that nobody named is told
    longer = dynpin("export", "nginx", "--inventory", "dynpin.toml", "--max-age", "60")
    assert "max-age=60" in longer.stdout
    static = dynpin("export", "android")
    assert HOST in static.stdout
    assert str(NEW) in static.stdout


def test_keys_that_are_named_go_before_the_file_in_the_folder(site: Site) -> None:
    shown = dynpin("export", "nginx", str(OLD), str(NEW))
    assert str(OLD) in shown.stdout
    assert str(Pin.from_file(site.chain)) not in shown.stdout
    assert dynpin("export", "nginx", str(OLD), "--inventory", "dynpin.toml").exit_code == 2


def test_keys_list_shows_those_of_the_inventory(site: Site, tmp_path: Path) -> None:
    # A bare pin is a backup whose type cannot be told.
    assert dynpin("keys", "list").exit_code == 0
    assert dynpin("keys", "new", HOST, "--passphrase-file", "-", stdin="correct horse battery\n").exit_code == 0
    inventory = tmp_path / "dynpin.toml"
    inventory.write_text(inventory.read_text().replace(f'{{ pin = "{NEW}" }}', '"backup-ec-p256.pub.pem"'))
    shown = dynpin("keys", "list", "--json")
    assert shown.exit_code == 0, shown.output
    keys = json.loads(shown.stdout)["keys"]
    assert [(key["role"], key["file"]) for key in keys] == [
        ("deployed", "tls/chain.pem"),
        ("backup", "backup-ec-p256.pub.pem"),
    ]
    inventory.unlink()
    assert "name what is deployed" in dynpin("keys", "list").stderr


def test_lint_reads_the_inventory(site: Site) -> None:
    assert dynpin("lint", "--fail-on", "error").exit_code == 0
    foreign = PublicKeyPins((*header(site).pins, OLD), MAX_AGE)
    found = dynpin("lint", str(foreign), "--json")
    assert found.exit_code == 1
    assert "hostile-pinning-ransompkp" in {each["fault"] for each in json.loads(found.stdout)}


def test_check_holds_the_live_header_against_the_inventory(site: Site) -> None:
    with serving(everywhere(header(site)), site) as port:
        seen = check(site, port, code=0)
    assert (seen["findings"], seen["lacking"], seen["not_deployed"]) == ([], [], {})


def test_a_live_pin_that_is_not_in_the_inventory_is_an_alarm(site: Site) -> None:
    sent = PublicKeyPins((*header(site).pins, OLD), MAX_AGE)
    with serving(everywhere(sent), site) as port:
        seen = check(site, port, "--inventory", "dynpin.toml", code=1)
    assert "hostile-pinning-ransompkp" in faults(seen)


def test_a_live_header_that_lacks_a_pin_of_the_inventory(site: Site) -> None:
    sent = PublicKeyPins((Pin.from_file(site.chain), OLD), MAX_AGE)
    with serving(everywhere(sent), site) as port:
        seen = check(site, port, "--fail-on", "critical", code=1)
    assert seen["lacking"] == [str(NEW)]


def test_a_server_that_has_not_loaded_its_new_certificate(site: Site, tmp_path: Path) -> None:
    # The inventory deploys the new key and keeps the old one as a backup: by the header alone all is well.
    new = make_site(tmp_path / "new", HOST)
    inventory = tmp_path / "dynpin.toml"
    text = inventory.read_text().replace("tls/chain.pem", "new/chain.pem")
    inventory.write_text(text.replace(f'{{ pin = "{NEW}" }}', '"tls/chain.pem"'))
    sent = PublicKeyPins((Pin.from_file(new.chain), Pin.from_file(site.chain)), MAX_AGE)
    with serving(everywhere(sent), site) as port:
        seen = check(site, port, code=1)
        told = dynpin("check", f"https://{HOST}:{port}/", "--ca", str(site.roots), "--address", "127.0.0.1")
    assert (faults(seen), seen["lacking"]) == (set(), [])
    assert seen["not_deployed"] == {"127.0.0.1": str(Pin.from_file(site.chain))}
    assert "has the server loaded the certificate in keys?" in told.stderr
    assert f"https://{HOST}:{port}/ at 127.0.0.1" in told.stdout


def test_the_guard_knows_from_the_inventory_what_clients_hold(site: Site, tmp_path: Path) -> None:
    other = make_site(tmp_path / "renewed", HOST)
    assert dynpin("guard", str(other.chain)).exit_code == 1
    copy = tmp_path / "copy.pem"
    copy.write_bytes(site.chain.read_bytes())
    assert dynpin("guard", str(copy)).exit_code == 0


def test_the_guard_is_not_asked_about_the_chain_that_it_compares_with(site: Site) -> None:
    # A new chain that has taken the old one's place would be checked against itself, and pass.
    answer = dynpin("guard", str(site.chain))
    assert answer.exit_code == 2
    assert "history" in answer.stderr


def test_a_hook_knows_the_inventory_from_any_folder(site: Site, tmp_path: Path) -> None:
    script = dynpin("guard", "--hook", "lego", "--install", "tls").stdout
    assert f"--inventory {tmp_path}/dynpin.toml --history {tmp_path}/dynpin-history.json" in script
    assert f"--install {tmp_path}/tls " in script


def test_a_history_begins_with_the_inventory(site: Site) -> None:
    assert dynpin("rotate", "record", "--now", "2026-11-24").exit_code == 0
    kept = History.from_json(Path("dynpin-history.json").read_bytes())
    assert (kept.host, kept.header, kept.chain) == (HOST, header(site), (Pin.from_file(site.chain),))


def test_an_inventory_beside_the_history_goes_before_the_one_in_the_folder(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the site in the working folder, such as a staging one, has nothing to do with that history."""
    copy = tmp_path / "staging"
    copy.mkdir()
    (copy / "dynpin.toml").write_text(f'hosts = ["{HOST}"]\nkeys = []\n\n[policy]\nmax_age = 60\n')
    monkeypatch.chdir(copy)
    history = ("--history", "../dynpin-history.json")
    assert dynpin("rotate", "record", *history).exit_code == 0
    assert History.from_json((tmp_path / "dynpin-history.json").read_text()).header == header(site)
    assert dynpin("guard", str(site.chain), "--header", str(header(site)), *history).exit_code == 0
    # What is named goes before both.
    told = ("--header", str(header(site)), "--chain", str(site.chain))
    repaired = dynpin("rotate", "repair", "--anew", *told, *history)
    assert repaired.exit_code == 0, repaired.output


def test_a_history_whose_host_is_damaged_is_that_of_the_inventory(site: Site, tmp_path: Path) -> None:
    dynpin("rotate", "record")
    file = tmp_path / "dynpin-history.json"
    file.write_text(file.read_text().replace(HOST, "not a host"))
    assert "'not a host'" in dynpin("rotate", "status").stderr
    (tmp_path / "dynpin.toml").rename(tmp_path / "away.toml")
    unknown = dynpin("rotate", "repair")
    assert (unknown.exit_code, "names no host that can be read" in unknown.stderr) == (2, True), unknown.output
    (tmp_path / "away.toml").rename(tmp_path / "dynpin.toml")
    assert dynpin("rotate", "repair").exit_code == 0
    assert History.from_json(file.read_text()).host == HOST


def test_a_new_key_says_which_line_pins_it(site: Site, tmp_path: Path) -> None:
    Path("passphrase").write_text("correct horse\n")
    made = dynpin("keys", "new", "--out", "tls", "--passphrase-file", "passphrase")
    assert made.exit_code == 0, made.output
    line = next(line for line in made.stdout.splitlines() if "backups = " in line)
    backups = tomllib.loads(line)["backups"]
    assert backups == [{"pin": str(NEW)}, "tls/backup-ec-p256.pub.pem"]
    assert "In dynpin.toml, so that it is pinned" in made.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "nginx"],
        ["lint"],
        ["check"],
        ["guard", "chain.pem"],
        ["rotate", "record"],
        ["keys", "new"],
    ],
    ids=" ".join,
)
def test_an_inventory_that_is_not_understood_is_named(arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text("hosts = 3\n")
    answer = dynpin(*arguments, "--inventory", str(file))
    assert answer.exit_code == 2
    assert str(file) in answer.stderr
