"""RFC 7469 §2.3.3 by RFC 6797 §8.2 and §10: which names are the same host, and which entry covers a host."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dynpin import InvalidHost, KnownPinnedHost, Pin
from dynpin.hosts import applicable, canonical_host, is_ip_literal, superdomains

PIN = Pin(bytes(32))


def entry(host: str, *, subdomains: bool = False, expires_at: float | None = 1000.0) -> KnownPinnedHost:
    return KnownPinnedHost(host, (PIN,), subdomains, None, 0.0, expires_at)


# -- RFC 6797 §10: canonical names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "canonical"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com", "example.com"),
        ("example.com.", "example.com"),
        ("intranet", "intranet"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        # What idna.encode refuses and closed networks use.
        ("my_service.internal", "my_service.internal"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("r3---sn-abc.example", "r3---sn-abc.example"),
        ("-lab-.example", "-lab-.example"),
        ("xn--notpunycode-", "xn--notpunycode-"),
        # UTS 46, not transitional: ß is a letter of its own, though ssl itself would say fass.example.
        ("Bücher.example", "xn--bcher-kva.example"),
        ("bücher.EXAMPLE.", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("my_service.bücher.example", "my_service.xn--bcher-kva.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("bücher。example。", "xn--bcher-kva.example"),  # the ideographic full stop separates labels
        ("\uff45xample.com", "example.com"),  # full width
        ("a\u00adb.example", "ab.example"),  # the soft hyphen is dropped
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        (".".join(["a" * 49] * 5) + ".bcd", ".".join(["a" * 49] * 5) + ".bcd"),  # 253 characters
        ("192.0.2.7", "192.0.2.7"),
        ("\uff11\uff19\uff12.0.2.7", "192.0.2.7"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
    ],
)
def test_the_canonical_name(host: str, canonical: str) -> None:
    assert canonical_host(host) == canonical


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "..",
        ".example.com",
        "example..com",
        "example.com..",
        "exam ple.com",
        "example.com\r\nX: y",
        "example.com\x00.evil.test",
        "user@example.com",
        "example.com:443",
        "https://example.com",
        "example.com/path",
        "ex%61mple.com",
        "[2001:db8::1",
        # What looks like an address at both ends, with any text inside.
        "[v\r\nX: y]",
        "[v1.\x00]",
        "fe80::1%\r\nX: y",
        "[fe80::1%<script>]",
        "a" * 64 + ".example",
        ".".join(["a" * 49] * 5) + ".bcde",  # 254 characters
        "☃.example",
        "a\u200db.example",
        "-bücher.example",
        "bücher..example",
        "℀.example",  # maps to a/c
        "\ud800.example",
        "ü" * 1025,
        "ü" * 100_000,
    ],
)
def test_a_name_that_has_no_canonical_form_is_refused(host: str) -> None:
    with pytest.raises(InvalidHost) as caught:
        canonical_host(host)
    assert len(str(caught.value)) < 3000


names = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"[a-zA-Z0-9_.\-]{0,80}", fullmatch=True),
    st.lists(st.text("abcäßøéλжあ例-_09\u200d\u0301İ", min_size=1, max_size=8), min_size=1, max_size=4).map(".".join),
    st.ip_addresses().map(str),
    st.text("0123456789abcdef.:[]v", max_size=30),
)


@given(st.from_regex(r"[a-f0-9x_.-]{1,8}(\.[a-f0-9x_-]{1,70}){0,5}\.?", fullmatch=True))
def test_lower_case_letters_and_digits_stand_as_they_are(name: str) -> None:
    bare = name.removesuffix(".")
    if len(bare) <= 253 and all(0 < len(label) <= 63 for label in bare.split(".")):
        assert canonical_host(name) == bare
    else:
        with pytest.raises(InvalidHost):
            canonical_host(name)


@given(names)
def test_canonical_names_are_fixed_points(name: str) -> None:
    try:
        canonical = canonical_host(name)
    except InvalidHost:
        return
    assert canonical_host(canonical) == canonical
    assert canonical_host(canonical.upper()) == canonical
    assert canonical.isascii()
    assert canonical == canonical.lower()
    assert not canonical.endswith(".")
    assert len(canonical) <= 253
    if not is_ip_literal(canonical):
        assert canonical_host(canonical + ".") == canonical


# -- §2.3.3: "identified only by domain names, and never IP addresses" -------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "192.0.2.7",
        "0.0.0.0",
        "255.255.255.255",
        "::",
        "::1",
        "2001:db8::1",
        "[2001:db8::1]",
        "fe80::1%eth0",
        "::ffff:192.0.2.7",
        "[v1.x]",
        "[V1F.a:b]",
    ],
)
def test_addresses(host: str) -> None:
    assert is_ip_literal(host)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "7",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "01.2.3.4",
        "0x7f.0.0.1",
        "0x7f000001",
        "2130706433",
        "1.2.3.4.example",
        "\u0661.\u0662.\u0663.\u0664",
        "v1.x",
        "[v1.x",
        "dead.beef",
        "",
        "]",
        "a]",
    ],
)
def test_digits_in_another_shape_are_a_name(host: str) -> None:
    assert not is_ip_literal(host)


@given(st.ip_addresses())
def test_no_address_has_a_superdomain_or_an_entry(address: object) -> None:
    host = canonical_host(str(address))
    assert is_ip_literal(host)
    assert superdomains(host) == ()
    last = host.rpartition(".")[2]
    assert applicable([entry(last, subdomains=True)], host, 1.0) is None or last == host


# -- RFC 6797 §8.2: congruent and superdomain match --------------------------------------------------------------------

labels = st.text("abcxyz019-_", min_size=1, max_size=5)
hosts = st.lists(labels, min_size=1, max_size=5).map(".".join).filter(lambda host: not is_ip_literal(host))


@given(hosts)
def test_superdomains_are_whole_labels_nearest_first(host: str) -> None:
    found = superdomains(host)
    assert len(found) == host.count(".")
    assert all(host.endswith("." + name) for name in found)
    assert sorted(found, key=len, reverse=True) == list(found)


@given(hosts, labels)
def test_badexample_is_no_subdomain_of_example(host: str, letters: str) -> None:
    assume(not is_ip_literal(letters + "." + host))
    assert host not in superdomains(letters + host)
    assert applicable([entry(host, subdomains=True)], letters + host, 0.0) is None
    assert applicable([entry(host, subdomains=True)], letters + "." + host, 0.0) is not None


COM = entry("com", subdomains=True)
EXAMPLE = entry("example.com", subdomains=True)
CLOSED = entry("b.example.com")
EXPIRED = entry("b.example.com", subdomains=True, expires_at=99.0)


@pytest.mark.parametrize(
    ("host", "entries", "expected"),
    [
        ("example.com", [], None),
        ("example.com", [EXAMPLE], EXAMPLE),
        ("a.example.com", [EXAMPLE], EXAMPLE),
        ("z.y.x.a.example.com", [EXAMPLE], EXAMPLE),
        ("com", [EXAMPLE], None),
        ("example.org", [EXAMPLE], None),
        ("badexample.com", [EXAMPLE], None),
        ("example.com.evil.test", [EXAMPLE], None),
        ("b.example.com", [EXAMPLE, CLOSED], CLOSED),  # the congruent match first
        ("a.b.example.com", [CLOSED], None),
        # wget2 stops at the nearest entry and fails open; the nearest *that asserted includeSubDomains* counts.
        ("a.b.example.com", [EXAMPLE, CLOSED], EXAMPLE),
        ("a.example.com", [COM, EXAMPLE], EXAMPLE),
        ("a.example.com", [EXAMPLE, COM], EXAMPLE),
        ("b.example.com", [EXPIRED], None),
        ("b.example.com", [EXPIRED, EXAMPLE], EXAMPLE),  # an expired nearer one hides nothing
        ("a.b.example.com", [EXPIRED, EXAMPLE], EXAMPLE),
    ],
)
def test_the_entry_that_applies(host: str, entries: list[KnownPinnedHost], expected: KnownPinnedHost | None) -> None:
    assert applicable(entries, host, 100.0) == expected


def test_a_static_entry_that_refuses_when_it_has_expired_still_applies() -> None:
    refuses = replace(EXPIRED, source="static", on_expiry="refuse")
    assert applicable([refuses, EXAMPLE], "a.b.example.com", 100.0) == refuses
    assert refuses.is_expired(100.0)
    assert not refuses.is_released(100.0)
    assert EXPIRED.is_released(100.0)
    assert not EXPIRED.is_released(99.0)


@pytest.mark.parametrize(
    ("expires_at", "now", "expired"),
    [(1000.0, 999.0, False), (1000.0, 1000.0, False), (1000.0, 1000.001, True), (None, 1e12, False)],
)
def test_expired_refers_to_a_date_in_the_past(expires_at: float | None, now: float, *, expired: bool) -> None:
    assert entry("example.com", expires_at=expires_at).is_expired(now) is expired
