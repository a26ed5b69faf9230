"""Shared by the tests of pin files."""

from __future__ import annotations

import io

from hypothesis import strategies as st

from dynpin import KnownPinnedHost, Pin
from dynpin.hosts import OnExpiry, is_ip_literal
from dynpin.report import FIRST_SECOND, LAST_SECOND

NOW = 1_800_000_000.0


ONE, TWO = Pin(bytes(32)), Pin(b"\xfb" * 32)  # the base64 of the second one begins with "+"


def opened(text: str) -> io.StringIO:
    """The text as an open file."""
    return io.StringIO(text)


# Every character that a host may have (RFC 3986 §3.2.2, reg-name).
labels = st.from_regex(r"[a-z0-9_~!$&'()+,;=-]{1,12}", fullmatch=True)


host_names = st.lists(labels, min_size=1, max_size=3).map(".".join).filter(lambda name: not is_ip_literal(name))


pins = st.lists(st.binary(min_size=32, max_size=32).map(Pin), min_size=1, max_size=4, unique=True).map(tuple)


seconds = st.integers(FIRST_SECOND, LAST_SECOND).map(float)


texts = st.text(min_size=1, max_size=20).filter(str.isprintable)


uris = (
    st.none()
    | texts
    | st.sampled_from(
        ["https://r.test/", "=cmd()", "+1", "-1", "@x", "'quoted'", 'a"b,c', "http://ü.test/", "\N{PILE OF POO}"]
    )
)


@st.composite
def static(draw: st.DrawFn) -> KnownPinnedHost:
    exact = tuple(draw(st.lists(st.binary(min_size=32, max_size=32), max_size=2, unique=True)))
    expires_at = draw(st.none() | seconds)
    on_expiry: OnExpiry = "release" if expires_at is None else draw(st.sampled_from(["release", "refuse"]))
    keys = draw(pins) if not exact else draw(pins | st.just(()))
    return KnownPinnedHost(
        draw(host_names), keys, draw(st.booleans()), draw(uris), NOW, expires_at, "static", exact, on_expiry
    )


CHROMIUM_KEYS = f"""\
# Names, and what they stand for.

PinsListTimestamp
1741204800

First
sha256/{ONE}

Second_2
sha256/{TWO}
"""


CHROMIUM = """\
// A comment, and "another" one.
{
  "pinsets": [
    { "name": "test", "static_spki_hashes": ["First", "Second_2"], "report_uri": "http://report.test//x" },
    { "name": "strict", "static_spki_hashes": ["First"], "bad_static_spki_hashes": ["Second_2"] }
  ],
  /* what is pinned */
  "entries": [
    { "name": "a.test", "policy": "test", "include_subdomains": true, "pins": "test" }, // inline
    { "name": "b.test", "mode": "force-https", "include_subdomains": true },
    { "name": "c.test", "include_subdomains_for_pinning": true, "pins": "strict" },
    { "name": "d.test", "pins": "strict" }
  ]
}
"""
