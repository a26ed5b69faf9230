"""Pin files: what is written is read again, what is wrong is named, and the real wget2 takes ours as we take its."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from dynpin import InvalidPinFile, KnownPinnedHost, Pin
from dynpin.clientstore import PinStore
from dynpin.clientstore.store.formats import (
    read_chromium,
    read_csv,
    read_json,
    read_toml,
    read_wget2,
    write_csv,
    write_json,
    write_toml,
    write_wget2,
)
from dynpin.hosts import OnExpiry
from dynpin.lab.network import TLSServer

from .world import leaf_pin

NOW = 1_800_000_000.0
ONE, TWO = Pin(bytes(32)), Pin(b"\xfb" * 32)  # the second one's base64 begins with "+"
WGET2 = shutil.which("wget2")

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
host_names = st.lists(labels, min_size=1, max_size=3).map(lambda parts: ".".join([*parts, "test"]))
pins = st.lists(st.binary(min_size=32, max_size=32).map(Pin), min_size=1, max_size=4, unique=True).map(tuple)
seconds = st.integers(0, 4_000_000_000).map(float)
uris = st.none() | st.sampled_from(
    ["https://r.test/", "=cmd()", "+1", "-1", "@x", "'quoted'", 'a"b,c', "http://ü.test/"]
)


@st.composite
def noted(draw: st.DrawFn) -> KnownPinnedHost:
    at = draw(seconds)
    expires_at = at + draw(st.integers(0, 10_000_000))
    return KnownPinnedHost(draw(host_names), draw(pins), draw(st.booleans()), draw(uris), at, expires_at)


@st.composite
def static(draw: st.DrawFn) -> KnownPinnedHost:
    exact = tuple(draw(st.lists(st.binary(min_size=32, max_size=32), max_size=2, unique=True)))
    expires_at = draw(st.none() | seconds)
    on_expiry: OnExpiry = "release" if expires_at is None else draw(st.sampled_from(["release", "refuse"]))
    keys = draw(pins) if not exact else draw(pins | st.just(()))
    return KnownPinnedHost(
        draw(host_names), keys, draw(st.booleans()), draw(uris), NOW, expires_at, "static", exact, on_expiry
    )


@given(st.lists(noted() | static(), max_size=5))
def test_json_and_csv_hold_everything(entries: list[KnownPinnedHost]) -> None:
    assert read_json(write_json(entries), now=0.0) == entries
    assert read_csv(write_csv(entries), now=0.0) == entries


@given(st.lists(static(), max_size=5))
def test_toml_holds_every_static_pin(entries: list[KnownPinnedHost]) -> None:
    if entries:
        assert read_toml(write_toml(entries), now=NOW) == entries


@given(st.lists(noted(), max_size=5))
def test_wget2s_file_holds_all_but_the_report_uri(entries: list[KnownPinnedHost]) -> None:
    from dataclasses import replace

    assert read_wget2(write_wget2(entries), now=0.0) == [replace(entry, report_uri=None) for entry in entries]


@pytest.mark.parametrize("uri", ["=cmd()", "+1", "-1", "@x", "'=1"])
def test_no_cell_of_the_csv_is_a_formula(uri: str) -> None:
    text = write_csv([KnownPinnedHost("a.test", (TWO,), False, uri, NOW, NOW + 1)])
    cells = [cell for line in text.splitlines() for cell in line.split(",")]
    assert not [cell for cell in cells if cell[:1] in set("=+-@")]


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

READERS: dict[str, Callable[[str], object]] = {
    "json": lambda text: read_json(text, now=NOW),
    "csv": lambda text: read_csv(text, now=NOW),
    "toml": lambda text: read_toml(text, now=NOW),
    "wget2": lambda text: read_wget2(text, now=NOW),
    "chromium": lambda text: read_chromium(text, CHROMIUM_KEYS, now=NOW),
    "chromium keys": lambda text: read_chromium(CHROMIUM, text, now=NOW),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
@given(st.text() | st.text(alphabet='[]{}"=,:*# \n\tabsinp01') | st.recursive(st.none(), st.lists).map(json.dumps))
def test_any_text_is_read_or_refused(reader: Callable[[str], object], text: str) -> None:
    with contextlib.suppress(InvalidPinFile):
        reader(text)


WRONG = [
    ("json", "{}", "no list"),
    ("json", "[1]", "entry 1: it is no object"),
    ("json", "[", "not JSON"),
    ("json", '[{"host": "a.test"}]', "at least one pin"),
    ("json", '[{"host": "127.0.0.1", "pins": ["PIN"]}]', "IP address"),
    ("json", '[{"host": "a b", "pins": ["PIN"]}]', "not a host name"),
    ("json", '[{"host": "a.test", "pins": ["short"]}]', "entry 1"),
    ("json", '[{"host": "a.test", "pins": ["PIN"], "source": "header"}]', "no expires_at"),
    ("json", '[{"host": "a.test", "pins": ["PIN"], "source": "rumour"}]', "source is 'rumour'"),
    ("json", '[{"host": "a.test", "pins": ["PIN"], "report_uri": "\\ud800"}]', "not a line of text"),
    ("json", '[{"host": "a.test", "pins": ["PIN"], "expires_at": "2030-01-01T00:00:00Z"}]', "on_expiry"),
    ("json", '[{"host": "a.test", "pins": ["PIN"], "expires_at": 5, "on_expiry": "refuse"}]', "not a time"),
    ("json", '[{"host": "a.test", "certificates": ["abcd"]}]', "64 hexadecimal digits"),
    ("csv", "", "no heading"),
    ("csv", "host\na.test\n", "no heading"),
    ("csv", "host,pins\na.test\n", "row 2: it has 1 cells"),
    ("csv", 'host,pins\n"a.test', "not CSV"),
    ("toml", "[[static]\n", "not TOML"),
    ("toml", "x = 1\n", "nothing else"),
    ("toml", "static = 1\n", "nothing else"),
    ("toml", f'[[static]]\nhost = "a.test"\npins = ["{ONE}"]\nsubdomains = true\n', "no field subdomains"),
    ("toml", f'[[static]]\nhost = "a.test"\npins = ["{ONE}"]\nexpires_at = 2030-01-01\n', "on_expiry"),
    ("toml", '[[static]]\nhost = "a.test"\nkeys = ["key.pem"]\n', "only a file may name files"),
    ("toml", f'[[static]]\nhost = "a.test"\npins = ["{ONE}"]\ninclude_subdomains = "yes"\n', "not true or false"),
    ("wget2", "a.test 0 5\n", "line 1"),
    ("wget2", f"*sha256 {ONE}\n", "line 1"),
    ("wget2", "a.test 0 -5 10\n", "line 1"),
    ("wget2", "# a comment\na.test 0 5 10\n*sha256 nonsense\n", "line 3"),
    ("wget2", "a.test 0 5 10\n", "no pins"),
    ("chromium", "[]", "no object"),
    ("chromium", '{"pinsets": []}', "no list of entries"),
    ("chromium", '{"pinsets": [], "entries": [{"name": "a.test", "pins": "nobody"}]}', "no pinset nobody"),
    ("chromium", '{"pinsets": [{"name": "p", "static_spki_hashes": ["Gone"]}], "entries": []}', "has not: Gone"),
    ("chromium keys", f"sha256/{ONE}\n", "without a name"),
    ("chromium keys", "One\n", "in the middle"),
    ("chromium keys", "One\n-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "line 4"),
    ("chromium keys", "One\nnonsense here\n", "neither a name nor a key"),
]


@pytest.mark.parametrize(("form", "text", "said"), WRONG, ids=[f"{form}-{said}" for form, _, said in WRONG])
def test_a_file_that_is_wrong_is_refused_with_the_place(form: str, text: str, said: str) -> None:
    with pytest.raises(InvalidPinFile, match=said.replace("(", r"\(")):
        READERS[form](text.replace("PIN", str(ONE)))


# -- Chromium ---------------------------------------------------------------------------------------------------------


def test_chromiums_static_pins_are_read() -> None:
    entries, forbidding = read_chromium(CHROMIUM, CHROMIUM_KEYS, now=NOW)
    assert [
        (entry.host, entry.pins, entry.include_subdomains, entry.report_uri, entry.source) for entry in entries
    ] == [
        ("a.test", (ONE, TWO), True, "http://report.test//x", "static"),
        ("c.test", (ONE,), True, None, "static"),
        ("d.test", (ONE,), False, None, "static"),
    ]
    assert forbidding == ["strict"]


def test_chromiums_keys_may_be_certificates_and_public_keys() -> None:
    leaf = trustme.CA().issue_cert("a.test")
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = leaf.cert_chain_pems[0].bytes()
    public = (
        x509.load_pem_x509_certificate(pem).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    keys = f"First\n{pem.decode()}\nSecond_2\n{public.decode()}\n"
    entries, _ = read_chromium(CHROMIUM, keys, now=NOW)
    assert entries[0].pins == (leaf_pin(leaf),)


# -- TOML names files -------------------------------------------------------------------------------------------------


def test_static_pins_may_name_key_files_and_certificates(tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("a.test")
    chain = tmp_path / "site.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    text = '[[static]]\nhost = "a.test"\nkeys = ["site.pem"]\ncertificates = ["site.pem"]\n'
    (entry,) = read_toml(text, now=NOW, folder=tmp_path)
    import ssl

    der = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
    assert entry.pins == (leaf_pin(leaf),)
    assert entry.certificates == (hashlib.sha256(der).digest(),)
    for field in ("keys", "certificates"):
        with pytest.raises(InvalidPinFile, match=r"gone\.pem"):
            read_toml(f'[[static]]\nhost = "a.test"\n{field} = ["gone.pem"]\n', now=NOW, folder=tmp_path)


def test_a_fingerprint_as_openssl_prints_it_is_read() -> None:
    colons = ":".join(["AB"] * 32)
    (entry,) = read_json(json.dumps([{"host": "a.test", "certificates": [colons]}]), now=NOW)
    assert entry.certificates == (b"\xab" * 32,)


# -- the real wget2 ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(WGET2 is None, reason="wget2 is not installed (Debian: apt-get install wget2)")
def test_wget2_enforces_what_dynpin_noted_and_dynpin_what_wget2_noted(tmp_path: Path) -> None:
    authority = trustme.CA()
    roots, file = tmp_path / "roots.pem", tmp_path / "hpkp"
    roots.write_bytes(authority.cert_pem.bytes())
    site, backup, other = (authority.issue_cert("localhost") for _ in range(3))
    header = f'pin-sha256="{leaf_pin(site)}"; pin-sha256="{leaf_pin(backup)}"; max-age=3600; includeSubDomains'

    def wget2(port: int) -> int:
        assert WGET2 is not None
        command = [WGET2, "--no-config", "--hpkp", f"--hpkp-file={file}", f"--ca-certificate={roots}", "--no-hsts"]
        command += ["--tries=1", "--timeout=60", "--no-ocsp", "--no-tls-resume", "-O", str(tmp_path / "page")]
        done = subprocess.run([*command, f"https://localhost:{port}/"], capture_output=True, timeout=300, check=False)
        return done.returncode

    with TLSServer(site) as server, PinStore(tmp_path / "ours") as ours, PinStore(tmp_path / "theirs") as theirs:
        ours.note("localhost", header, [leaf_pin(site)])
        file.write_text(write_wget2(ours.hosts()))
        assert wget2(server.port) == 0
        server.show(other)
        assert wget2(server.port) == 5  # ours bind it

        file.unlink()
        server.show(site)
        server.headers = [("Public-Key-Pins", header)]
        assert wget2(server.port) == 0
        (taken,) = theirs.merge(read_wget2(file.read_text(), now=theirs.clock()))
        assert taken.pins == (leaf_pin(site), leaf_pin(backup)) or taken.pins == (leaf_pin(backup), leaf_pin(site))
        assert taken.include_subdomains
        assert taken.expires_at == taken.noted_at + 3600
        assert not theirs.validate("www.localhost", [leaf_pin(other)]).ok  # its own bind us
        assert theirs.validate("localhost", [leaf_pin(backup)]).ok


def test_the_example_of_the_documents_is_read() -> None:
    text = textwrap.dedent(f"""
        [[static]]
        host = "api.example.com"
        pins = ["{ONE}", "{TWO}"]
        include_subdomains = true
        expires_at = 2027-06-30
        on_expiry = "release"
    """)
    (entry,) = read_toml(text, now=NOW)
    assert entry.expires_at == 1_814_313_600.0
    assert (entry.on_expiry, entry.include_subdomains, entry.pins) == ("release", True, (ONE, TWO))
