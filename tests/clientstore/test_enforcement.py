"""What a part of a chain decides is what the whole decides (RFC 7469 §2.6), over every set of pins of real chains."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from collections.abc import Iterator
from itertools import chain as joined
from itertools import combinations, product

import pytest
import trustme

from dynpin import KnownPinnedHost, Pin
from dynpin.clientstore.enforcement.chains import Certificate, der, inner
from dynpin.clientstore.enforcement.decision import Proof, _hold_against
from dynpin.hosts import OnExpiry
from dynpin.pins import chain_pins
from dynpin.validation import validate

from .world import HOST, cross_signed

NOW = 1_000.0
STRANGER = Pin(b"stranger" * 4)


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> list[list[Certificate]]:
    """Two leaves of one intermediate, and the first one by another root: as OpenSSL holds what it has verified."""
    honest, other = trustme.CA(), trustme.CA()
    intermediate = honest.create_child_ca()
    first, second = intermediate.issue_cert(HOST), intermediate.issue_cert(HOST)
    crossed = tmp_path_factory.mktemp("chains") / "crossed.pem"
    pems = (first.private_key_pem.bytes(), first.cert_chain_pems[0].bytes(), cross_signed(intermediate, other))
    crossed.write_bytes(b"".join(pems))
    by_the_other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    by_the_other.load_cert_chain(crossed)
    servers = [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2)]
    for server, leaf in zip(servers, (first, second), strict=True):
        leaf.configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for authority in (honest, other):
        authority.configure_trust(client)
    found = [verified(client, server) for server in (*servers, by_the_other)]
    assert [len(chain) for chain in found] == [3, 3, 3]
    assert found[0][1:] == found[1][1:] != found[2][1:]
    return found


def verified(client: ssl.SSLContext, server: ssl.SSLContext) -> list[Certificate]:
    """The chain of a handshake through memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(back, there, server_hostname=HOST)
    far = server.wrap_bio(there, back, server_side=True)
    for end in (near, far, near):  # TLS 1.3: hello, the server's flight, the end
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    connected = inner(near)
    assert connected is not None
    return connected.get_verified_chain() or []


def entries(chains: list[list[Certificate]]) -> Iterator[KnownPinnedHost]:
    """One for every set of pins, certificates, and ways to expire."""
    certificates = sorted({encoding for chain in chains for encoding in der(chain)})
    pins = sorted({*chain_pins(certificates), STRANGER})
    digests = [hashlib.sha256(encoding).digest() for encoding in certificates]
    sets = joined.from_iterable(combinations(pins, count) for count in range(len(pins) + 1))
    ways: list[tuple[float | None, OnExpiry]] = [(None, "release"), (NOW - 1, "release"), (NOW - 1, "refuse")]
    for chosen, named, (expires_at, on_expiry) in product(sets, [(), *((digest,) for digest in digests)], ways):
        yield KnownPinnedHost(
            HOST, chosen, False, None, 0.0, expires_at, "static", certificates=named, on_expiry=on_expiry
        )


def whole(known: KnownPinnedHost | None, chain: list[Certificate]) -> bool:
    encodings = der(chain)
    return validate(HOST, known, chain_pins(encodings), certificates=encodings, now=NOW).ok


def test_a_part_decides_as_the_whole_and_says_of_a_refusal_what_the_whole_says(
    chains: list[list[Certificate]],
) -> None:
    decided: set[tuple[bool, int]] = set()
    for known, chain in product((None, *entries(chains)), (*chains, [])):
        validation, _ = _hold_against(known, Proof(HOST, chain), NOW)
        assert validation.ok == whole(known, chain)
        if not validation.ok:
            assert validation.chain == chain_pins(der(chain))
        decided.add((validation.ok, len(validation.chain)))
    # By the leaf alone, by the issuer, by the root, and refused by no less than the whole.
    assert decided == {(True, 0), (True, 1), (True, 2), (True, 3), (False, 3), (False, 0)}


def test_what_is_the_same_from_there_on_passes_the_whole_check_too(chains: list[list[Certificate]]) -> None:
    lent = 0
    for known, passed, other in product(entries(chains), chains, chains):
        validation, depth = _hold_against(known, Proof(HOST, passed), NOW)
        if validation.ok and depth and passed[depth:] == other[depth:]:
            assert whole(known, other)
            lent += passed != other
    assert lent
