"""niquests, in an environment of its own, since it replaces urllib3 by a fork."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.environments import told_by

from .inbox import Inbox
from .sites import HTTP2Site, Proxy
from .test_origins import NOT_NOTED, NOTED, RawSite
from .world import HOST, World, leaf_pin

Visits = Callable[..., list[Any]]

both = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.fixture
def roots(world: World) -> Path:
    return world.roots_file()


@pytest.fixture
def visits(world: World, roots: Path, niquests_python: Path) -> Visits:
    def run(*steps: dict[str, Any]) -> list[Any]:
        module = "tests.clientstore.niquests_visits"
        told: list[Any] = told_by(niquests_python, module, world.folder / "pins", roots, *map(json.dumps, steps))
        return told

    return run


@both
def test_noted_then_refused_with_nothing_sent(world: World, visits: Visits, kind: str) -> None:
    assert visits({"kind": kind, "urls": [world.site.url(HOST)]}) == [{"statuses": [200]}]
    known = world.store.entry(HOST)  # the other process had a clock of its own
    assert known is not None
    assert known.pins == world.header.pins
    (told,) = visits({"kind": kind, "urls": [world.attacker.url(HOST)]})
    assert (told["error"], told["port"]) == ("SSLError", world.attacker.port)
    assert "shows none of its pinned keys" in told["violation"]
    world.attacker.wait_idle()
    assert world.attacker.connections >= 1
    assert world.attacker.application_bytes == 0


@both
def test_a_name_that_niquests_writes_as_another_one_is_refused(world: World, visits: Visits, kind: str) -> None:
    world.store.pin("xn--nxasmq6b.test", world.header.pins)  # σ, which UTS 46 makes of each Σ; niquests connects to ς
    (told,) = visits({"kind": kind, "urls": [world.attacker.url("ΒΌΛΟΣ.test")]})
    assert told["error"] == "SSLError"
    assert "xn--nxasmq6b.test is pinned" in told["violation"]
    assert world.attacker.connections == 0


@both
def test_the_report_of_a_violation_is_delivered(world: World, visits: Visits, kind: str) -> None:
    with Inbox() as inbox:
        world.store.pin(HOST, world.header.pins, report_uri=f"http://127.0.0.1:{inbox.port}/hpkp")
        visits({"kind": kind, "urls": [world.attacker.url(HOST)]})
        report = inbox.next_report()
    assert (report["hostname"], report["port"]) == (HOST, world.attacker.port)


@both
def test_http_2_and_connect(world: World, visits: Visits, kind: str) -> None:
    with Proxy() as proxy, HTTP2Site(world.certificate, headers=world.site.headers) as site:
        assert visits({"kind": kind, "urls": [site.url(HOST)], "proxy": proxy.url}) == [{"statuses": [200]}]
        known = world.store.entry(HOST)  # the other process had a clock of its own
        assert known is not None
        (told,) = visits({"kind": kind, "urls": [world.attacker.url(HOST)], "proxy": proxy.url})
        assert (told["error"], told["port"]) == ("SSLError", world.attacker.port)
        assert len(proxy.tunnels) >= 2
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


def test_multiplexed_responses_are_noted_each_for_its_own_request(world: World, visits: Visits) -> None:
    with HTTP2Site(world.certificate, headers=world.site.headers) as site:
        elsewhere = {"kind": "multiplexed", "urls": [site.url(HOST)], "headers": {"Host": "elsewhere.test"}}
        assert visits(elsewhere) == [{"statuses": [200]}]
        assert world.store.entry(HOST) is None
        assert visits({**elsewhere, "urls": [site.url(HOST)] * 2}) == [{"statuses": [200, 200]}]
    assert world.store.entry(HOST) is not None


@both
def test_the_tls_of_a_proxy_is_checked_against_its_own_pins(world: World, visits: Visits, kind: str) -> None:
    with Proxy(world.honest.issue_cert("proxy.test"), headers=world_headers(world)) as proxy:
        step = {"kind": kind, "urls": [world.site.url(HOST), "http://plain.test/"], "proxy": proxy.url}
        assert visits(step, {**step, "context": True}) == [{"statuses": [200, 200]}] * 2
        # An http:// site's answer through an https proxy pins nothing for the proxy.
        assert [world.store.entry(host) for host in ("proxy.test", "plain.test")] == [None, None]
        world.store.pin("proxy.test", [leaf_pin(world.backup)])
        seen = proxy.requests
        steps = [{**step, "urls": [url]} for url in step["urls"]]
        for told in visits(*steps, *({**one, "context": True} for one in steps)):
            assert "proxy.test shows none of its pinned keys" in told["violation"]
        assert proxy.requests == seen


def world_headers(world: World) -> tuple[tuple[str, str], ...]:
    return tuple(world.site.headers)


@pytest.mark.parametrize(("option", "told_of"), [("cert", "load_cert_chain"), ("verify", "load_verify_locations")])
def test_options_of_a_request_do_not_stay_in_the_callers_context(
    world: World, roots: Path, visits: Visits, option: str, told_of: str
) -> None:
    pem = world.folder / "client.pem"
    world.honest.issue_cert("client@bank.test").private_key_and_cert_chain_pem.write_to_path(str(pem))
    step = {"kind": "sync", "context": True, "urls": [world.site.url(HOST)]}
    (told,) = visits({**step, option: str(pem if option == "cert" else roots)})
    assert told["error"] == "TypeError"
    assert told_of in told["text"]
    world.site.wait_idle()
    assert world.site.application_bytes == 0


def test_options_that_would_avoid_the_pins_are_refused(world: World, visits: Visits) -> None:
    world.pin_site()
    prefixes = ["wss://", "sse://", "psse://", "ws://", "ws", "wss://bank.test", "http://", "HTTPS://bank.test"]
    unverified = {"kind": "sync", "urls": [world.attacker.url(HOST)], "verify": False}
    own_manager = {"kind": "sync", "urls": [world.attacker.url(HOST)], "own manager": True}
    refusals, managed, *told = visits(
        *({"kind": "refusals", "prefixes": prefixes}, own_manager),
        *(unverified, {**unverified, "verify": f"sha256_{'0' * 64}"}),
    )
    http3 = "HTTP/3 does not use ssl, so pins cannot be enforced on it"
    assert refusals[:2] == [http3, http3]
    assert all("without checking the pins" in text or "does not check the pins" in text for text in refusals[2:])
    assert len(refusals) == 7 + len(prefixes)
    assert "shows none of its pinned keys" in managed["violation"]
    assert all("verification is switched off" in one["violation"] for one in told)
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


def test_server_sent_events_use_the_pinned_adapter(world: World, visits: Visits) -> None:
    world.pin_site()
    (told,) = visits({"kind": "sync", "urls": [world.attacker.url(HOST).replace("https:", "sse:")]})
    assert "shows none of its pinned keys" in told["violation"]
    world.attacker.wait_idle()
    assert (world.attacker.connections >= 1, world.attacker.application_bytes) == (True, 0)


def test_resolvers_over_tls_are_refused(world: World, visits: Visits, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = ["doh://dns.test", "dot://dns.test", ["system://", "doh+cloudflare://"]]
    taken = ["system://", "dou://127.0.0.1", ["in-memory://default?hosts=a.test"], None]
    told = visits({"kind": "resolvers", "resolvers": [*tls, *taken]})[0]
    assert all("of a name server" in text for text in told[: 2 * len(tls)])
    assert told[2 * len(tls) :] == ["taken"] * 2 * len(taken)
    monkeypatch.setenv("NIQUESTS_DNS_URL", "doh://dns.test")
    assert all("NIQUESTS_DNS_URL" in text for text in visits({"kind": "resolvers", "resolvers": [None]})[0])


def test_copies_are_refused_and_the_users_own_store_is_closed(
    world: World, visits: Visits, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.folder / "users-own" / "pins.sqlite"
    monkeypatch.setenv("DYNPIN_STORE", str(path))
    copied, (before, *after) = visits(
        {"kind": "copies"}, {"kind": "descriptors", "users_own": str(path), "urls": [world.site.url(HOST)]}
    )
    assert len(copied) == 4
    assert all("cannot be pickled or copied" in text for text in copied)
    assert (before > 0, after) == (True, [0, 0])


@both
def test_only_the_final_response_is_noted(world: World, visits: Visits, kind: str) -> None:
    for answers, noted in ((NOT_NOTED, False), (NOTED, True)):
        for name, answer in answers.items():
            with RawSite(world.certificate, headers=world.site.headers) as raw:
                raw.answer = answer
                visits({"kind": kind, "urls": [raw.url(HOST)]})
                raw.wait_idle()
                assert b"GET / HTTP/1.1" in raw.received
            assert (world.store.entry(HOST) is not None) == noted, name
            world.store.forget(HOST)
