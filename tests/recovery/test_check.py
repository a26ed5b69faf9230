"""`dynpin check --list`: the signed list of a live site, compared with its header."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dynpin import Pin, PublicKeyPins
from tests.deploy.commands import dynpin
from tests.deploy.servers import Site, make_site
from tests.deploy.test_check import HOST, NEW, NEXT, check, everywhere, serving
from tests.recovery.operator import Operator
from tests.recovery.publisher import Publisher


@dataclass
class Listed:
    site: Site
    operator: Operator
    publisher: Publisher
    pins: tuple[Pin, Pin]

    def header(self, *pins: Pin) -> PublicKeyPins:
        recovery = self.operator.repository.recovery(self.publisher.uri)
        return PublicKeyPins(pins or self.pins, 2592000, recovery=recovery)


@pytest.fixture
def listed(tmp_path: Path) -> Iterator[Listed]:
    site, operator = make_site(tmp_path / "site", HOST), Operator(tmp_path)
    with Publisher(operator.www) as publisher:
        yield Listed(site, operator, publisher, (Pin.from_file(site.chain), NEW))


@pytest.mark.parametrize("by_uri", [True, False])
def test_a_list_that_agrees_with_the_header_is_fine(listed: Listed, by_uri: bool) -> None:
    listed.operator.sign({HOST: listed.pins})
    place = "uri" if by_uri else str(listed.operator.www)
    with serving(everywhere(listed.header()), listed.site) as port:
        seen = check(listed.site, port, "--list", place, code=0)
        assert bool(listed.publisher.requests) is by_uri
        assert (seen["remarks"], seen["list"]["version"]) == ([], 1)
        assert set(seen["list"]["expires_at"]) == {"root", "targets", "snapshot", "timestamp"}
        told = dynpin(
            "check",
            f"https://{HOST}:{port}/",
            "--ca",
            str(listed.site.roots),
            "--address",
            "127.0.0.1",
            "--list",
            place,
        )
    assert (told.exit_code, "timestamp until 20" in told.output) == (0, True), told.output


def test_a_list_that_would_lock_out_is_a_finding(listed: Listed) -> None:
    listed.operator.sign({HOST: (NEW, NEXT)})
    with serving(everywhere(listed.header()), listed.site) as port:
        seen = check(listed.site, port, "--list", "uri", code=1)
        assert any("is locked out" in each for each in seen["remarks"]), seen["remarks"]
        # Without the option there is no message, and nothing is fetched.
        listed.publisher.requests.clear()
        assert check(listed.site, port, code=0)["list"] is None
        url, site = f"https://{HOST}:{port}/", listed.site
        told = dynpin("check", url, "--ca", str(site.roots), "--address", "127.0.0.1", "--no-probe")
    assert (told.exit_code, "--list uri shows when it expires" in told.output) == (0, True), told.output
    assert not listed.publisher.requests


def test_an_expiring_list_is_a_finding_in_time(listed: Listed) -> None:
    listed.operator.sign({HOST: listed.pins}, now=time.time() - 6 * 86_400)
    with serving(everywhere(listed.header()), listed.site) as port:
        seen = check(listed.site, port, "--list", "uri", code=1)
    assert any("the timestamp expires in" in each for each in seen["remarks"]), seen["remarks"]


def test_a_list_that_nobody_published_is_a_finding(listed: Listed) -> None:
    with serving(everywhere(listed.header()), listed.site) as port:
        seen = check(listed.site, port, "--list", "uri", code=1)
    assert any("no client believes the list" in each for each in seen["remarks"]), seen["remarks"]


def test_a_site_without_a_root_has_no_list(listed: Listed) -> None:
    with serving(everywhere(PublicKeyPins(listed.pins, 2592000)), listed.site) as port:
        seen = check(listed.site, port, "--list", "uri", code=1)
    assert any("names no recovery-root" in each for each in seen["remarks"]), seen["remarks"]


def test_a_missing_folder_is_wrong_usage(tmp_path: Path) -> None:
    done = dynpin("check", f"https://{HOST}/", "--list", str(tmp_path / "nowhere"))
    assert (done.exit_code, "there is no folder" in done.output) == (2, True), done.output
