"""enforce (RFC 7469 §2.6): the rule and its traps, on real sockets."""

from __future__ import annotations

import copy
import os
import pickle
import shlex
import sqlite3
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from dynpin import Pin, PinValidationError
from dynpin.clientstore import PinStore, enforce, peer_of
from dynpin.clientstore.enforcement import request_site, verified_chain
from dynpin.pins import chain_pins
from dynpin.report import Report

from ..clock import Clock
from .handshakes import REQUEST, assert_refused_unheard, open_tls, shows
from .queued import by_hand
from .world import HOST, World, cross_signed, leaf_pin, odd_leaf, tls_world


@pytest.fixture
def world(honest: trustme.CA, rogue: trustme.CA, tmp_path: Path) -> Iterator[World]:
    with tls_world(honest, rogue, tmp_path, "other.test") as made:
        yield made


# -- the rule ---------------------------------------------------------------------------------------------------------


def test_an_unknown_host_connects_and_shows_its_validated_chain(world: World) -> None:
    with open_tls(world, world.site, world.context()) as tls:
        peer = peer_of(tls)
        assert peer is not None
        assert chain_pins(peer.served()) == (leaf_pin(world.certificate),)
        assert verified_chain(tls) == peer.validated
    assert (verified_chain(tls), peer.served()) == ((), ())  # nothing is left of a connection that was closed
    assert (peer.host, peer.pins[0]) == (HOST, leaf_pin(world.certificate))
    assert peer.pins[-1] == Pin.from_certificate(world.honest.cert_pem.bytes())


def test_the_pinned_key_connects(world: World) -> None:
    world.pin_site()
    with open_tls(world, world.site, world.context()) as tls:
        tls.sendall(REQUEST)
        assert tls.recv(4096).startswith(b"HTTP/1.1 200")


def test_another_key_under_a_trusted_ca_is_refused_before_a_byte(world: World) -> None:
    world.pin_site()
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context()))
    message = str(error)
    for part in (HOST, *map(str, world.header.pins), str(leaf_pin(world.stolen_name)), "dynpin hosts forget bank.test"):
        assert part in message
    assert error.validation is not None
    assert error.validation.chain[0] == leaf_pin(world.stolen_name)
    assert (error.reason, error.library, error.verify_message) == ("CERTIFICATE_VERIFY_FAILED", "SSL", message)


def test_without_enforcement_the_same_request_reaches_the_attacker(world: World) -> None:
    world.pin_site()
    with open_tls(world, world.attacker, world.plain_context()) as tls:
        tls.sendall(REQUEST)
        tls.recv(4096)
    world.attacker.wait_idle()
    assert b"Bearer secret" in world.attacker.received


def test_the_error_survives_pickle_and_copy(world: World) -> None:
    world.pin_site()
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context()))
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (str(twin), twin.validation, twin.report) == (str(error), error.validation, error.report)


def test_a_pin_on_the_authority_covers_a_new_leaf_and_not_the_other_authority(world: World) -> None:
    world.store.pin(HOST, [Pin.from_certificate(world.honest.cert_pem.bytes())])
    world.site.show(world.backup)
    with open_tls(world, world.site, world.context()):
        pass
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context()))


def test_certificates_beyond_the_validated_chain_are_ignored(world: World) -> None:
    # The attacker also sends the site's real certificate. §2.6: superfluous certificates MUST be ignored.
    world.pin_site()
    chain = b"".join(pem.bytes() for pem in (*world.stolen_name.cert_chain_pems, *world.certificate.cert_chain_pems))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    file = world.folder / "padded.pem"
    file.write_bytes(world.stolen_name.private_key_pem.bytes() + chain)
    context.load_cert_chain(file)
    world.attacker.use(context)
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context()))
    assert error.report is not None
    assert len(error.report.served_chain) > 1
    assert error.report.validated_chain != error.report.served_chain


# -- remembered chains ------------------------------------------------------------------------------------------------


def test_a_leaf_never_seen_passes_under_a_pinned_issuer_and_is_the_one_that_is_noted(world: World) -> None:
    world.store.pin(HOST, [Pin.from_certificate(world.honest.cert_pem.bytes())])
    context = world.context()
    for shown in (world.certificate, world.backup, world.certificate):
        world.site.show(shown)
        with open_tls(world, world.site, context) as tls:
            peer = peer_of(tls)
        assert peer is not None
        assert peer.pins[0] == leaf_pin(shown)
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))


@pytest.mark.parametrize("pinned", [True, False])
def test_a_chain_that_has_passed_is_looked_up_again_when_the_store_has_changed(
    world: World, monkeypatch: pytest.MonkeyPatch, pinned: bool
) -> None:
    asked: list[str] = []
    look_up = world.store.look_up

    def counted(name: str) -> object:
        asked.append(name)
        return look_up(name)

    monkeypatch.setattr(world.store, "look_up", counted)
    if pinned:
        world.pin_site()
    context = world.context()
    for expected in ([HOST], [HOST]):  # the second time the state of the store is enough
        with open_tls(world, world.site, context):
            assert asked == expected
    world.store.pin("elsewhere.test", world.header.pins)
    with open_tls(world, world.site, context):
        assert asked == [HOST, HOST]


def test_a_leaf_that_passed_proves_nothing_for_another_leaf_of_its_issuer(world: World) -> None:
    world.store.pin(HOST, [leaf_pin(world.certificate)])
    context = world.context()
    with open_tls(world, world.site, context):
        pass
    world.site.show(world.backup)
    with pytest.raises(PinValidationError, match="none of its pinned keys"):
        open_tls(world, world.site, context)


def test_the_same_leaf_by_another_path_is_another_chain(world: World) -> None:
    # The intermediate is certified by both authorities, and only the honest authority's key is pinned.
    world.store.pin(HOST, [Pin.from_certificate(world.honest.cert_pem.bytes())])
    intermediate = world.honest.create_child_ca()
    leaf = intermediate.issue_cert(HOST)
    context = world.context()
    world.site.show(leaf)
    with open_tls(world, world.site, context):
        pass
    crossed = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    file = world.folder / "crossed.pem"
    file.write_bytes(
        leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes() + cross_signed(intermediate, world.rogue)
    )
    crossed.load_cert_chain(file)
    world.attacker.use(crossed)
    with open_tls(world, world.attacker, world.plain_context()):
        pass  # it is valid except for the pins
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))
    assert error.validation is not None
    assert error.validation.chain[0] == leaf_pin(leaf)


def test_a_host_that_passed_as_unknown_is_checked_as_soon_as_it_has_pins(world: World) -> None:
    context = world.context()
    for _ in range(2):
        with open_tls(world, world.attacker, context):
            pass
    with PinStore(world.store.path) as other:
        other.pin(HOST, world.header.pins)
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))


def test_a_chain_that_passed_is_checked_again_after_an_expiry_and_after_the_clock_goes_back(world: World) -> None:
    clock = Clock()
    issuer = [Pin.from_certificate(world.honest.cert_pem.bytes())]
    with PinStore(world.folder / "expiring", clock=clock) as store:
        store.pin(HOST, issuer, expires_at=clock.now + 10, on_expiry="refuse")
        context = enforce(world.plain_context(), store)
        for _ in range(2):
            with open_tls(world, world.site, context):
                pass
        clock.now += 11
        with pytest.raises(PinValidationError, match="expired"):
            open_tls(world, world.site, context)
        store.pin(HOST, [leaf_pin(world.backup)], expires_at=clock.now + 10)
        clock.now += 11
        for _ in range(2):
            with open_tls(world, world.site, context):  # released, so the host is unknown again
                pass
        clock.now -= 11
        with pytest.raises(PinValidationError, match="none of its pinned keys"):
            open_tls(world, world.site, context)


# -- names ------------------------------------------------------------------------------------------------------------


def test_an_ip_address_is_never_pinned(world: World) -> None:
    by_address = world.honest.issue_cert("127.0.0.1")
    world.site.show(by_address)
    with open_tls(world, world.site, world.context(), "127.0.0.1") as tls:
        peer = peer_of(tls)
    assert peer is not None
    assert world.store.note("127.0.0.1", str(world.header), peer.pins).outcome == "ignored"


def test_the_name_is_compared_canonically(world: World) -> None:
    world.pin_site()
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context(), "BANK.Test"))


def test_a_connection_without_a_name_is_refused(world: World) -> None:
    context = world.context()
    context.check_hostname = False
    with pytest.raises(PinValidationError, match="host name"):
        open_tls(world, world.site, context, None)


# -- consequences of a refusal ----------------------------------------------------------------------------------------


def test_the_callback_sees_the_violation_and_cannot_hide_it(world: World) -> None:
    world.pin_site()
    seen: list[PinValidationError] = []

    def broken(error: PinValidationError) -> None:
        seen.append(error)
        raise RuntimeError("the callback is broken")

    context = enforce(world.plain_context(), world.store, on_violation=broken)
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))
    assert seen == [error]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03"),  # X.509 version 4
        (b"\x0c\x04\0odd", b"\x03\x04\0odd"),  # a common name that is a BIT STRING
    ],
    ids=["version 4", "bit string"],
)
def test_a_certificate_that_is_hard_to_read_hides_no_violation(
    world: World, caplog: pytest.LogCaptureFixture, old: bytes, new: bytes
) -> None:
    world.store.pin(HOST, world.header.pins, report_uri="https://report.test/r")
    world.attacker.use(shows(world, odd_leaf(world.rogue, HOST, old, new)))
    with open_tls(world, world.attacker, world.plain_context()):
        pass  # it is valid except for the pins
    seen: list[PinValidationError] = []
    kept = by_hand(world.store)
    context = enforce(world.plain_context(), world.store, on_violation=seen.append, reporter=kept)
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))
    assert "none of its pinned keys" in str(error)
    assert "dynpin hosts forget bank.test" in str(error)
    assert seen == [error]
    assert "Pin Validation failed" in caplog.text
    assert [report.noted_host for report in kept.pending()] == [HOST]


class _BrokenReporter:
    def add(self, report: Report, report_uri: str) -> object:
        raise RuntimeError(f"{report.hostname} to {report_uri}: the reporter is broken")


def test_a_broken_reporter_hides_no_violation(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.store.pin(HOST, world.header.pins, report_uri="https://report.test/r")
    context = enforce(world.plain_context(), world.store, reporter=_BrokenReporter())
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))
    assert error.report is not None
    assert "the reporter is broken" in caplog.text


def test_the_command_to_paste_is_one_command_whatever_the_names(world: World) -> None:
    host = "a;id;$(reboot).evil.test"
    folder = world.folder / "my pins; $(id)"
    folder.mkdir()
    world.attacker.use(shows(world, odd_leaf(world.rogue, host, b"odd", b"odd")))
    with PinStore(folder / "pins") as store:
        store.pin(host, world.header.pins)
        context = enforce(world.plain_context(), store)
        error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context, host))
        command = str(error).partition("is right:  ")[2]
        assert shlex.split(command) == ["dynpin", "hosts", "forget", host, "--store", str(store.path)]
        context.check_hostname = False
        error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context, host))
        assert str(error).endswith(f"give up the pins:  {command}")


def test_the_report_has_both_chains_and_the_port_if_the_adapter_knows_it(world: World) -> None:
    world.store.pin(HOST, world.header.pins, report_uri="https://report.test/r")
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context()))
    assert error.report is not None
    assert error.report.port is None  # behind a proxy the peer's port is not the site's, and is never guessed
    assert Pin.from_certificate(error.report.served_chain[0]) == leaf_pin(world.stolen_name)
    assert Pin.from_certificate(error.report.validated_chain[-1]) == Pin.from_certificate(world.rogue.cert_pem.bytes())
    token = request_site.set((HOST, 8443))
    try:
        error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context()))
    finally:
        request_site.reset(token)
    assert error.report is not None
    assert error.report.port == 8443


def test_pins_that_cannot_be_read_refuse(world: World) -> None:
    world.pin_site()
    context = world.context()
    with sqlite3.connect(world.store.path) as other:
        other.execute("DROP TABLE hosts")
    other.close()
    with pytest.raises(PinValidationError, match="cannot be read"):
        open_tls(world, world.site, context)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_enforces_and_so_does_the_parent(world: World) -> None:
    world.pin_site()
    context = world.context()
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's own process
        try:
            open_tls(world, world.attacker, context)
        except PinValidationError:
            world.store.pin("from.the.child.test", world.header.pins)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert world.store.known_host("from.the.child.test") is not None
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))
