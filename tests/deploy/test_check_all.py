"""`dynpin check --all`: many sites at once, each with its own fault, and none of them stops another."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from dynpin import Pin, PublicKeyPins
from dynpin.deploy.many import inventories_below
from dynpin.deploy.parallel import all_of, as_they_end
from tests.deploy.commands import dynpin
from tests.deploy.servers import Site, make_site
from tests.deploy.test_check import NEW, OLD, everywhere, serving

NAMES = ("fine.example.com", "stale.example.com", "bare.example.com")
BROKEN = {
    "typo": 'host = ["a.example.com"]\n',
    "no-key": 'hosts = ["b.example.com"]\nkeys = ["absent.pem"]\nbackups = []\n[policy]\nmax_age = "30 days"\n',
    "wildcard": 'hosts = ["192.0.2.1", "*.example.com"]\nkeys = ["../../tls/chain.pem"]\nbackups = [{ pin = "NEW" }]\n'
    '[policy]\nmax_age = "30 days"\n',
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "tls", *NAMES, "*.example.com")


@pytest.fixture
def folder(site: Site, tmp_path: Path) -> Path:
    """Three sites that can be looked at, and three whose files are broken."""
    folder = tmp_path / "sites"
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        (folder / name / "dynpin.toml").write_text(
            f'hosts = ["{name}"]\nkeys = ["../../tls/chain.pem"]\nbackups = [{{ pin = "{NEW}" }}]\n'
            '[policy]\nmax_age = "30 days"\n'
        )
    for name, text in BROKEN.items():
        (folder / name).mkdir()
        (folder / name / "dynpin.toml").write_text(text.replace("NEW", str(NEW)))
    return folder


@pytest.fixture
def address(site: Site) -> Iterator[str]:
    """All sites on one address: one sends its header, another a stale one, and all others none."""
    good, stale = (PublicKeyPins((Pin.from_file(site.chain), pin), 30 * 86_400) for pin in (NEW, OLD))
    by_host = {"fine.example.com": everywhere(good), "stale.example.com": everywhere(stale)}
    with serving(lambda path: (200, {}, ""), site, by_host=by_host) as port:
        yield f"127.0.0.1:{port}"


def check_all(folder: Path, site: Site, address: str, *more: str) -> Result:
    return dynpin("check", "--all", str(folder), "--ca", str(site.roots), "--address", address, *more)


def test_each_site_has_a_line_and_none_stops_another(folder: Path, site: Site, address: str) -> None:
    result = check_all(folder, site, address)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    *lines, last = result.stdout.splitlines()
    assert last == "6 sites, 5 with a finding."
    by_path = {next(word for word in line.split() if word.endswith(".toml")): line for line in lines}
    assert [line.split()[0] for line in by_path.values()].count("fine") == 1
    for name, said in {
        "fine.example.com": "fine    fine.example.com",
        "stale.example.com": f"hostile-pinning-ransompkp  stale.example.com does not send {NEW}",
        "bare.example.com": "header-missing",
        "typo": "did you mean hosts?",
        "no-key": "absent.pem cannot be read",
        "wildcard": "has no name to look at, only wildcards or IP addresses",
    }.items():
        assert said in by_path[f"{name}/dynpin.toml"], by_path


def test_the_same_as_json(folder: Path, site: Site, address: str) -> None:
    result = check_all(folder, site, address, "--json", "--at-once", "2")
    sites: Any = {Path(each["inventory"]).parent.name: each for each in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert [name for name, each in sites.items() if each["ok"]] == ["fine.example.com"]
    assert {each["fault"] for each in sites["stale.example.com"]["findings"]} == {"hostile-pinning-ransompkp"}
    assert sites["stale.example.com"]["lacking"] == [str(NEW)]
    assert (sites["typo"]["host"], "hosts" in sites["typo"]["failure"]) == (None, True)


def test_all_is_well(folder: Path, site: Site, address: str) -> None:
    result = check_all(folder / "fine.example.com", site, address)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "1 site, 0 with a finding.")


def test_the_history_beside_an_inventory_counts(folder: Path, site: Site, address: str) -> None:
    own = folder / "fine.example.com"
    history = ("--history", str(own / "dynpin-history.json"))
    former = str(PublicKeyPins((OLD, NEW), 30 * 86_400))
    begun = dynpin("rotate", "record", "--host", own.name, "--header", former, "--chain", str(site.chain), *history)
    assert begun.exit_code == 1, begun.output  # recorded, and the inventory beside it makes another header
    result = check_all(own, site, address)
    assert (result.exit_code, "history-differs" in result.stdout) == (1, True)
    other = (own / "dynpin-history.json").read_text().replace(own.name, "other.example.com")
    (own / "dynpin-history.json").write_text(other)
    result = check_all(own, site, address)
    assert (result.exit_code, "is the history of other.example.com" in result.stdout) == (1, True), result.output
    told = dynpin("check", "--inventory", str(own / "dynpin.toml"), *history)
    assert (told.exit_code, "is the history of other.example.com" in told.stderr) == (2, True), told.output
    (own / "dynpin-history.json").write_text("{")
    result = check_all(own, site, address)
    assert (result.exit_code, "dynpin rotate repair" in result.stdout) == (1, True)


def test_no_site_is_left_out_for_the_kind_of_its_files(tmp_path: Path) -> None:
    sites, real = tmp_path / "sites", tmp_path / "real" / "deeper"
    for path in (sites / "folder" / "dynpin.toml", real):
        path.mkdir(parents=True)
    (real / "dynpin.toml").write_text("")
    (sites / "enabled").symlink_to(real)
    (sites / "elsewhere").symlink_to(tmp_path / "real")  # it has no site itself
    (sites / "again").symlink_to(sites / "folder")  # a site counts once
    (sites / "folder" / "loop").symlink_to(sites)
    (sites / "zz").symlink_to(real)
    (sites / "gone").mkdir()
    (sites / "gone" / "dynpin.toml").symlink_to(tmp_path / "absent")
    found, unread = inventories_below(sites)
    assert [str(each.parent.relative_to(sites)) for each in found] == ["enabled", "folder", "gone"]
    assert unread == ()
    result = dynpin("check", "--all", str(sites))
    assert (result.exit_code, "3 sites, 3 with a finding." in result.stdout) == (1, True), result.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_a_finding(folder: Path, site: Site, address: str) -> None:
    (folder / "typo").chmod(0)
    try:
        result = check_all(folder, site, address)
    finally:
        (folder / "typo").chmod(0o700)
    assert "typo  Permission denied" in result.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_linked_folder_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    (tmp_path / "real").mkdir(0)
    (tmp_path / "sites" / "enabled").symlink_to(tmp_path / "real")
    found, unread = inventories_below(tmp_path / "sites")
    assert (found, [each.failure for each in unread]) == ((), ["Permission denied"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{empty}"], "there is no dynpin.toml below"),
        (["{empty}/absent"], "absent: No such file"),
        (["{empty}", "https://www.example.com/"], "leave out the URL"),
        (["{empty}", "--inventory", "x"], "leave out the URL"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = dynpin("check", "--all", *(each.format(empty=tmp_path) for each in arguments))
    assert (result.exit_code, said in result.stderr) == (2, True), result.output


# -- several at once --------------------------------------------------------------------------------------------------


def test_no_more_jobs_run_at_once_than_may() -> None:
    running, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(3)

    def job(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait(60)  # three run at once, or this fails
        with lock:
            running -= 1
        return number * number

    assert all_of([partial(job, number) for number in range(9)], at_once=3) == [n * n for n in range(9)]
    assert most == 3
    assert all_of([]) == []


def test_an_error_is_raised_and_nothing_more_begins() -> None:
    begun: list[int] = []

    def job(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise ValueError("here")
        return number

    with pytest.raises(ValueError, match="here"):
        list(as_they_end([partial(job, number) for number in range(100)], at_once=1))
    assert begun == [0, 1]
