"""Backup Pins that stand in the chain that clients validate, and that whatever a policy accepts every client notes."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin import Pin, PolicyError
from dynpin.clientstore import PinStore, enforce
from dynpin.clientstore.enforcement import verified_chain
from dynpin.lab.certificates import Authority, KeyPair
from dynpin.middleware import Policy
from dynpin.middleware.policy import (
    Key,
    certain_pins,
    in_chain,
    read_chain,
    read_key,
    validated_path,
)

from .pki import HOST, LEAF, Pki, pem

# -- which keys stand in it -------------------------------------------------------------------------------------------


def test_a_key_that_issued_or_is_in_the_chain_is_no_backup(pki: Pki, tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(pki.root.pem + pki.other.pem)
    served = [read_chain(pki.leaf.pem, "fullchain.pem")]  # without the root, as servers send it
    refused = {
        "the root": pki.root.pem,
        "the root's public key": pki.root.key.public_pem,
        "the intermediate": pki.intermediate.pem,
        "the leaf's key": pki.leaf.key.private_pem,
    }
    for label, source in refused.items():
        assert "fullchain.pem" in (in_chain(read_key(source, label), served) or ""), label
    assert in_chain(read_key(pki.spare.public_pem, "spare"), served, [roots]) is None
    assert in_chain(read_key(pki.other.pem, "another CA"), served, [roots]) is None
    # A bare pin shows no key; a root that is known tells whose it is.
    bare = Key("the pin", pki.root.key.pin)
    assert in_chain(bare, served) is None
    assert "a root of fullchain.pem" in (in_chain(bare, served, [roots]) or "")
    assert validated_path(served[0], [roots]) == (pki.leaf.key.pin, pki.intermediate.key.pin, pki.root.key.pin)


def test_what_every_client_finds_in_its_chain(pki: Pki, tmp_path: Path) -> None:
    """Not a certificate that issued nothing, nor what is above a root that some clients know."""
    cross = pki.root.cross_signed(pki.other)
    again = pki.root.cross_signed(Authority("A third root"))
    leaf, intermediate = pki.leaf.served
    issuing = (pki.leaf.key.pin, pki.intermediate.key.pin, pki.root.key.pin)
    known, old = tmp_path / "known.pem", tmp_path / "old.pem"
    known.write_bytes(pki.root.pem)
    old.write_bytes(pki.other.pem)
    served: dict[str, tuple[bytes, list[Path], tuple[Pin, ...]]] = {
        "as servers send it": (pki.leaf.pem, [], issuing[:2]),
        "with the root": (pem(*pki.whole), [], issuing),
        "in any order": (pem(leaf, pki.root.certificate, intermediate), [], issuing),
        "with a stranger": (pem(leaf, pki.other.certificate), [], issuing[:1]),
        "with another leaf": (pki.leaf.pem + pem(pki.root.issue(HOST, LEAF).served[0]), [], issuing[:2]),
        "up to another root": (
            pem(leaf, intermediate, cross.certificate, pki.other.certificate),
            [old],
            (*issuing, pki.other.key.pin),
        ),
        "past a known root": (pem(leaf, intermediate, cross.certificate, pki.other.certificate), [known], issuing),
        "past a root that is in it": (pem(*pki.whole, cross.certificate, pki.other.certificate), [], issuing),
        "of two issuers of an issuer": (
            pem(leaf, intermediate, cross.certificate, again.certificate, pki.other.certificate),
            [],
            issuing,
        ),
        "a key alone": (pki.leaf.key.public_pem, [], issuing[:1]),
    }
    found = {name: certain_pins(read_chain(data, "c"), roots) for name, (data, roots, _) in served.items()}
    assert found == {name: expected for name, (_, _, expected) in served.items()}


def test_a_client_may_take_either_of_two_issuers(pki: Pki, tmp_path: Path) -> None:
    known = tmp_path / "known.pem"
    known.write_bytes(pki.root.pem)
    leaf, intermediate = pki.leaf.served
    twin = Authority("Intermediate", Authority("A third root"), pki.intermediate.key).certificate
    for both in ((intermediate, twin), (twin, intermediate)):
        assert pki.root.key.pin in validated_path(read_chain(pem(leaf, *both), "c"), [known])


def test_roots_that_cannot_be_read_are_said(pki: Pki, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"absent\.pem, which roots names, holds no roots that can be read"):
        in_chain(Key("x", pki.spare.pin), [read_chain(pki.leaf.pem, "c")], [tmp_path / "absent.pem"])


POLICIES: dict[str, tuple[Callable[[Pki], dict[str, Any]], str]] = {
    "the root as backup": (lambda pki: {"backups": pki.root.pem}, "is the key that issued certificate 1 of keys"),
    "the root beside a backup": (
        lambda pki: {"backups": [pki.root.pem, pki.spare.public_pem]},
        "A key of the chain is not a backup key",
    ),
    "a bundle in reverse": (lambda pki: {"keys": pem(*reversed(pki.whole))}, "is in reverse order"),
    "a CA's certificate": (lambda pki: {"keys": pki.intermediate.pem}, "is a CA certificate"),
    "expired": (lambda pki: {"keys": pki.root.issue(HOST, LEAF, expired=True).pem}, "expired on"),
    "another host's": (lambda pki: {"hosts": "shop.test"}, "is for bank.test, not for shop.test"),
    "two backups in a file": (lambda pki: {"backups": pki.spare.public_pem + pki.other.key.public_pem}, "several keys"),
    "certificates of two backups in a file": (
        lambda pki: {"backups": pki.root.issue(HOST, pki.spare).pem + pki.root.issue(HOST, LEAF).pem},
        "several keys",
    ),
    "the chain of a backup in reverse": (
        lambda pki: {"backups": pki.other.pem + pki.other.issue(HOST, pki.spare).pem},
        "several keys",
    ),
    "two deployed keys in a file": (
        lambda pki: {"keys": pki.spare.private_pem + LEAF.public_pem, "backups": pki.other.key.public_pem},
        "several keys",
    ),
    "a stranger pinned": (
        lambda pki: {"keys": pem(pki.whole[0], pki.other.certificate), "pinned": 1},
        "it issued nothing there",
    ),
    "keys and backups swapped": (
        lambda pki: {"keys": pki.root.pem, "backups": pki.leaf.pem, "hosts": HOST},
        "is for no DNS name at all",
    ),
}


@pytest.mark.parametrize(("change", "why"), POLICIES.values(), ids=POLICIES)
def test_a_policy_refuses_them(change: Callable[[Pki], dict[str, Any]], why: str, pki: Pki) -> None:
    sound = {"keys": pki.leaf.pem, "backups": pki.spare.public_pem, "max_age": 3600}
    assert Policy(**sound).header is not None  # type: ignore[arg-type] # a dict of several types
    with pytest.raises(PolicyError, match=why):
        Policy(**{**sound, **change(pki)})


def test_a_backup_that_was_just_deployed_is_a_warning_while_there_is_another(
    pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Policy(pki.leaf.pem, [pki.leaf.key.public_pem, pki.spare.public_pem], max_age=60)
    assert policy.header is not None
    assert "no longer a backup key" in caplog.text


def test_a_bare_pin_that_may_be_the_root_s_is_told(pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "roots.pem").write_bytes(pki.root.pem)
    root, other = pki.root.key.pin, pki.other.key.pin
    Policy(pki.leaf.pem, [root, pki.spare.public_pem], max_age=60)
    Policy(pki.leaf.pem, other, max_age=60, roots=tmp_path / "roots.pem")
    assert caplog.text == ""
    Policy(pki.leaf.pem, root, max_age=60)
    assert f"the pin {root} may be that of the root of keys[0], which is not known here" in caplog.text


def test_the_chain_of_a_backup_is_one_key(pki: Pki) -> None:
    renewed = pki.other.issue(HOST, pki.spare)
    for data in (renewed.pem + pki.other.pem, renewed.pem * 2, pki.spare.private_pem + pki.spare.public_pem):
        assert read_key(data, "backup").pin == pki.spare.pin


# -- the rule ---------------------------------------------------------------------------------------------------------


def test_roots_are_told_apart_where_they_are_cross_signed(pki: Pki) -> None:
    """The root is sent along, cross-signed: the key of the one above is in the chain of some clients."""
    cross = pki.root.cross_signed(pki.other)
    served = read_chain(pki.leaf.pem + cross.pem, "fullchain.pem")
    assert "certificate 2" in (in_chain(read_key(pki.other.pem, "other"), [served]) or "")


@pytest.fixture(scope="module")
def anchors(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("anchors") / "roots.pem"
    file.write_bytes(pki.root.pem + pki.other.pem)
    return file


def visit(pki: Pki, bundle: bytes, key: KeyPair, header: str, anchors: Path, folder: Path) -> str:
    """What a client of the site notes, over real TLS: the outcome, or why it did not connect."""
    file = folder / "server.pem"
    file.write_bytes(key.private_pem + bundle)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(file)
    with PinStore.private() as store, pair() as (near, far):
        context = enforce(ssl.create_default_context(cafile=anchors), store)
        thread = threading.Thread(target=shake_hands, args=(server_context, far))
        thread.start()
        try:
            with context.wrap_socket(near, server_hostname=HOST) as tls:
                return store.note(HOST, header, [*map(Pin.from_certificate, verified_chain(tls))]).outcome
        except ssl.SSLError as error:
            return str(error)
        finally:
            near.close()
            thread.join()


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def shake_hands(context: ssl.SSLContext, far: socket.socket) -> None:
    try:
        with context.wrap_socket(far, server_side=True) as tls:
            tls.recv(1)
    except OSError:
        pass


@given(
    order=st.sampled_from([each for size in (1, 2, 3) for each in itertools.permutations(range(3), size)]),
    is_cross_signed=st.booleans(),
    backups=st.lists(st.sampled_from(["spare", "root", "intermediate", "leaf", "other", "bare root"]), max_size=3),
    pinned=st.sampled_from(["leaf", "chain", 1]),
)
def test_whatever_a_policy_accepts_every_client_notes(
    order: tuple[int, ...],
    is_cross_signed: bool,
    backups: list[str],
    pinned: Any,
    pki: Pki,
    anchors: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    whole = pki.whole
    if is_cross_signed:
        whole = (whole[0], whole[1], pki.root.cross_signed(pki.other).certificate)
    bundle = pem(*(whole[number] for number in order))
    keys: dict[str, Any] = {
        "spare": pki.spare.public_pem,
        "root": pki.root.pem,
        "intermediate": pki.intermediate.key.public_pem,
        "leaf": pki.leaf.key.public_pem,
        "other": pki.other.pem,
        "bare root": pki.root.key.pin,
    }
    try:
        policy = Policy(bundle, [keys[each] for each in backups], max_age=60, pinned=pinned, hosts=HOST, roots=anchors)
    except PolicyError:
        # Never because it is timid: the plain case is always accepted.
        assert not (order == (0, 1) and set(backups) == {"spare"})
        return
    assert policy.header is not None
    folder = tmp_path_factory.mktemp("server")
    outcome = visit(pki, bundle, pki.leaf.key, str(policy.header), anchors, folder)
    # A leaf without its intermediate is what a policy cannot know to be incomplete: a client may have it.
    assert outcome == "noted" or 1 not in order, outcome
