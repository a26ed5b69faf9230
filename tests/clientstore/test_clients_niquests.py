"""niquests, in an environment of its own: it puts a fork in the place of urllib3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.environments import told_by

from .inbox import Inbox
from .sites import HTTP2Site, Proxy
from .world import HOST, World, leaf_pin

both = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.fixture
def visits(world: World, niquests_python: Path) -> Any:
    roots = world.folder / "roots.pem"
    roots.write_bytes(world.honest.cert_pem.bytes() + world.rogue.cert_pem.bytes())

    def run(*steps: str) -> list[Any]:
        visits = "tests.clientstore.niquests_visits"
        told: list[Any] = told_by(niquests_python, visits, world.folder / "pins", roots, *steps)
        return told

    return run


@both
def test_noted_then_refused_with_nothing_sent(world: World, visits: Any, kind: str) -> None:
    assert visits(f"{kind} {world.site.url(HOST)}") == [{"status": 200}]
    known = world.store.entry(HOST)  # the other process had a clock of its own
    assert known is not None
    assert known.pins == world.header.pins
    (told,) = visits(f"{kind} {world.attacker.url(HOST)}")
    assert (told["error"], told["port"]) == ("SSLError", world.attacker.port)
    assert "shows none of its pinned keys" in told["violation"]
    world.attacker.wait_idle()
    assert world.attacker.connections >= 1
    assert world.attacker.application_bytes == 0


@both
def test_the_report_of_a_violation_is_delivered(world: World, visits: Any, kind: str) -> None:
    with Inbox() as inbox:
        world.store.pin(HOST, world.header.pins, report_uri=f"http://127.0.0.1:{inbox.port}/hpkp")
        visits(f"{kind} {world.attacker.url(HOST)}")
        report = inbox.next_report()
    assert (report["hostname"], report["port"]) == (HOST, world.attacker.port)


@both
def test_http_2_and_connect(world: World, visits: Any, kind: str) -> None:
    with Proxy() as proxy, HTTP2Site(world.certificate, headers=world.site.headers) as site:
        assert visits(f"{kind} {site.url(HOST)} {proxy.url}") == [{"status": 200}]
        known = world.store.entry(HOST)  # the other process had a clock of its own
        assert known is not None
        (told,) = visits(f"{kind} {world.attacker.url(HOST)} {proxy.url}")
        assert (told["error"], told["port"]) == ("SSLError", world.attacker.port)
        assert len(proxy.tunnels) >= 2
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


@both
def test_the_tls_of_a_proxy_is_held_against_its_own_pins(world: World, visits: Any, kind: str) -> None:
    with Proxy(world.honest.issue_cert("proxy.test")) as proxy:
        assert visits(f"{kind} {world.site.url(HOST)} {proxy.url}") == [{"status": 200}]
        world.store.pin("proxy.test", [leaf_pin(world.backup)])
        (told,) = visits(f"{kind} {world.site.url(HOST)} {proxy.url}")
        assert "proxy.test shows none of its pinned keys" in told["violation"]
        assert len(proxy.tunnels) == 1


def test_a_client_certificate_does_not_stay_in_the_callers_context(world: World, visits: Any) -> None:
    pem = world.folder / "client.pem"
    world.honest.issue_cert("client@bank.test").private_key_and_cert_chain_pem.write_to_path(str(pem))
    (told,) = visits(f"certificate {world.site.url(HOST)} {pem}")
    assert "load_cert_chain" in told
    world.site.wait_idle()
    assert world.site.application_bytes == 0


def test_what_would_pass_by_the_pins_is_refused(world: World, visits: Any) -> None:
    world.pin_site()
    refusals, unverified = visits("refusals", f"unverified {world.attacker.url(HOST)}")
    http3 = "HTTP/3 does not pass through ssl, so pins cannot be enforced on it"
    assert refusals[:2] == [http3, http3]
    assert all("would connect past the pins" in text for text in refusals[2:])
    assert len(refusals) == 4
    assert "verification is switched off" in unverified["violation"]
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0
