"""What must hold for any bytes at all: a parser gives a value that can be written and read again, or its own error.

Each target takes bytes and raises AssertionError, or whatever slipped through, where that is not so.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cryptography_vectors
import rfc8785
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA512

from dynpin import (
    InvalidHeader,
    InvalidHost,
    InvalidPinFile,
    InvalidReport,
    KnownPinnedHost,
    Pin,
    PublicKeyPins,
    UnpinnableKey,
)
from dynpin.clientstore.recovery import FolderFetcher, verify_ssl_pinning
from dynpin.clientstore.store.formats import (
    read_chromium,
    read_csv,
    read_json,
    read_jsonl,
    read_toml,
    read_wget2,
    write_csv,
    write_json,
    write_jsonl,
    write_toml,
    write_wget2,
)
from dynpin.errors import InvalidStudy
from dynpin.header import Malformed, scan
from dynpin.hosts import applicable, canonical_host, is_ip_literal, superdomains
from dynpin.lab.simulation import read_study, simulate
from dynpin.lab.simulation.study import EXAMPLE
from dynpin.middleware.collector import Limits, Token, collector
from dynpin.middleware.collector.app import Collector
from dynpin.noting import note
from dynpin.recovery import SIGNING_KEY, Recovery
from dynpin.report import FIRST_SECOND, LAST_SECOND, grouping_key, load_json, parse_report, read_report, unwrap
from dynpin.validation import validate
from tests.recovery.ssl_pinning_lists import DER, KEY

_VECTORS = Path(__file__).parent.parent / "vectors"
_PINS = tuple(Pin(bytes([number]) * 32) for number in range(3))


def header(data: bytes) -> None:
    """PublicKeyPins.parse, the scanner under it, and noting what came of it (RFC 7469 §2.1, §2.5)."""
    value = data.decode("latin-1")
    malformed = next((found for found in scan(value) if isinstance(found, Malformed)), None)
    for report_only in (False, True):
        parsed: PublicKeyPins | InvalidHeader
        try:
            parsed = PublicKeyPins.parse(value, report_only=report_only)
        except InvalidHeader as error:
            assert 0 <= error.position <= len(value)  # noqa: PT017 - either outcome is right
            parsed = error
        else:
            assert malformed is None
            assert PublicKeyPins.parse(str(parsed), report_only=report_only) == parsed
            assert str(parsed).isprintable() or "\t" in str(parsed) or not str(parsed).isascii()
            assert not {"\r", "\n", "\0"} & set(str(parsed))
        noting = note("bank.test", None, parsed, _PINS, 0.0)
        if noting.known_host is not None:
            assert validate("bank.test", noting.known_host, _PINS).ok


def host(data: bytes) -> None:
    """canonical_host and the relation of superdomains (RFC 6797 §8.2, §10)."""
    try:
        name = canonical_host(data.decode("utf-8", "surrogatepass" if data[:1] < b"\x80" else "replace"))
    except (InvalidHost, UnicodeDecodeError):
        return
    assert canonical_host(name) == name
    assert name.isascii()
    assert len(name) <= 253
    entry = KnownPinnedHost(name, _PINS, True, None, 0.0, 1.0)
    assert applicable([entry], name, 0.0) == entry
    for above in superdomains(name):
        assert name.endswith("." + above)
        assert canonical_host(above) == above
    if not is_ip_literal(name) and len(name) < 250:
        assert applicable([entry], "bad" + name, 0.0) is None
        assert applicable([entry], "www." + name, 0.0) == entry


def report(data: bytes) -> None:
    """parse_report, and the envelopes around reports (RFC 7469 §3)."""
    try:
        loaded = load_json(data)
    except InvalidReport:
        return
    for content in unwrap(loaded):
        try:
            found = read_report(content)
        except InvalidReport:
            continue
        if found.known_pins or found.served_chain or found.validated_chain:  # else all that it gave was unreadable
            assert parse_report(found.to_json()).to_dict() == found.to_dict()
        assert len(grouping_key(found)) == 32
        json.dumps([found.flags, found.extra], ensure_ascii=False).encode()


_WAYS = [
    ("POST", "/r/demo/enforce", b"application/json"),
    ("POST", "/r/demo/report-only/", b"application/reports+json"),
    ("POST", "/r/shop/enforce", b"text/plain; charset=x"),
    ("OPTIONS", "/r/demo/enforce", b""),
]


@cache
def _collector() -> tuple[Collector, asyncio.Runner, tempfile.TemporaryDirectory[str]]:
    folder = tempfile.TemporaryDirectory(prefix="dynpin-fuzz-", ignore_cleanup_errors=True)  # gone with the process
    many = 10**12
    limits = Limits(per_token=many, per_source=many, in_all=many)
    tokens = [Token("demo"), Token("shop", hosts=("example.com",))]
    file = Path(folder.name) / "r.sqlite"
    return collector(file, tokens=tokens, open_access=True, limits=limits), asyncio.Runner(), folder


def collected(data: bytes) -> None:
    """The collector's ASGI app: the answer to any body, and the page and the JSON of what was stored of it.

    The first byte says how the rest is sent.
    """
    app, runner, _ = _collector()
    method, path, media_type = _WAYS[data[0] % len(_WAYS)] if data else _WAYS[0]
    status, _ = runner.run(_asked(app, method, path, media_type, data[1:]))
    assert status in (200, 204, 400, 413, 415), status
    if method == "POST" and status in (200, 204):
        status, found = runner.run(_asked(app, "GET", "/api/reports"))
        assert status == 200
        for stored in json.loads(found)["entries"][:1]:
            for page in ("/", f"/groups/{stored['group']}", f"/groups/{stored['group']}/served.pem"):
                status, _ = runner.run(_asked(app, "GET", page))
                assert status == 200, page


async def _asked(
    app: Collector, method: str, path: str, media_type: bytes = b"", body: bytes = b""
) -> tuple[int, bytes]:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-type", media_type), (b"user-agent", body[:40]), (b"host", b"a.test")]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers, "scheme": "http"}
    await app({**scope, "client": ("192.0.2.7", 1), "server": ("a.test", 80)}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def pin_file(data: bytes) -> None:
    """Pin.from_bytes: certificates, CSRs and keys, PEM and DER (RFC 7469 §2.4)."""
    for make in (Pin.from_bytes, Pin.from_certificate, Pin.from_csr, Pin.from_public_key, Pin.from_private_key):
        try:
            pin = make(data)
        except UnpinnableKey as error:
            assert str(error)  # noqa: PT017 - either outcome is right
            continue
        assert Pin.from_base64(str(pin)) == pin


def pin_list(data: bytes) -> None:
    """The files of other programs and of dynpin itself that hold many pins."""
    text = data.decode("utf-8", "replace")
    for read, write in _READERS:
        try:
            entries = read(text)
        except InvalidPinFile as error:
            assert str(error).isprintable()  # noqa: PT017 - either outcome is right
            continue
        for known in entries:
            assert canonical_host(known.host) == known.host
            assert (
                known.expires_at is None or FIRST_SECOND <= known.expires_at <= LAST_SECOND or known.source == "header"
            )
        if write is not None:
            written = "".join(write(entries))  # in whole seconds
            assert "".join(write(read(written))) == written


def signed_list(data: bytes) -> None:
    """A list of ssl-pinning: a file as it comes, and what its owner might sign."""
    files = [data]
    with contextlib.suppress(ValueError, RecursionError):
        payload = {"keys": json.loads(data)}
        signature = KEY.sign(rfc8785.dumps(payload), padding.PKCS1v15(), SHA512())
        files.append(json.dumps({"payload": payload, "signature": base64.b64encode(signature).decode()}).encode())
    with tempfile.TemporaryDirectory(prefix="dynpin-fuzz-") as folder:
        for content in files:
            (file := Path(folder) / "list.json").write_bytes(content)
            recovery = Recovery(Pin.from_public_key(DER).digest, "https://list.example/pins.json")
            seen = verify_ssl_pinning(recovery, {SIGNING_KEY: DER}, FolderFetcher(file, recovery.uri), 2e9)
            assert (seen.pins is None) == (seen.problem is not None)
            assert content is not data or seen.pins is None, "nobody has signed it"
            for name, listed in {} if seen.pins is None else seen.pins.hosts.items():
                assert canonical_host(name) == name
                assert listed.pins
                assert listed.ends_at is not None
                assert listed.ends_at > 2e9


def study(data: bytes) -> None:
    """A study of the simulator in TOML; what follows a NUL is the file of its traces."""
    with tempfile.TemporaryDirectory(prefix="dynpin-fuzz-") as folder:
        file = Path(folder) / "study.toml"
        said, _, traces = data.partition(b"\0")
        file.write_bytes(said)
        (Path(folder) / "visits.csv").write_bytes(traces)
        try:
            read = read_study(file)
            # Some days of it: that the calendar can be laid out, and that clients can be drawn.
            simulate(replace(read, clients=2, days=min(read.days, 5)), processes=1)
        except InvalidStudy as error:
            assert str(error).startswith(str(file))  # noqa: PT017 - either outcome is right


_CHROMIUM = """\
{ "pinsets": [{ "name": "p", "static_spki_hashes": ["First"], "bad_static_spki_hashes": [] }],  // comment
  "entries": [{ "name": "a.test", "include_subdomains": true, "pins": "p" }] }
"""
_CHROMIUM_KEYS = f"# keys\n\nFirst\nsha256/{_PINS[1]}\n"

_Reader = Callable[[str], list[KnownPinnedHost]]
_Writer = Callable[[list[KnownPinnedHost]], Iterator[str]]
_READERS: list[tuple[_Reader, _Writer | None]] = [
    (lambda text: list(read_json(io.StringIO(text), now=0.0)), write_json),
    (lambda text: list(read_jsonl(io.StringIO(text), now=0.0)), write_jsonl),
    (lambda text: list(read_csv(io.StringIO(text), now=0.0)), write_csv),
    (lambda text: list(read_wget2(io.StringIO(text), now=0.0)), None),
    (lambda text: list(read_toml(io.StringIO(text), now=0.0)), None),
    (lambda text: read_chromium(io.StringIO(text), io.StringIO(_CHROMIUM_KEYS), now=0.0)[0], None),
    (lambda text: read_chromium(io.StringIO(_CHROMIUM), io.StringIO(text), now=0.0)[0], None),
]


class Target(NamedTuple):
    """One target, with examples that random input is made from."""

    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def _vectors(file: str) -> dict[str, list[dict[str, object]]]:
    loaded: dict[str, list[dict[str, object]]] = json.loads((_VECTORS / file).read_text())
    return loaded


def _headers() -> list[bytes]:
    return [str(vector["value"]).encode("latin-1", "replace") for vector in _vectors("header.json")["vectors"]]


def _hosts() -> list[bytes]:
    names = [
        "EXAMPLE.com.",
        "bücher.example",
        "faß.de",
        "192.0.2.7",
        "[2001:db8::1]",
        "r3---sn-abc.example",
        "例え。テスト",
    ]
    return [name.encode() for name in names]


def _reports() -> list[bytes]:
    bodies = [request.get("body", "") for request in _vectors("reports.json")["requests"]]
    return [(body if isinstance(body, str) else json.dumps(body)).encode() for body in bodies]


def _sent() -> list[bytes]:
    return [bytes([way]) + body for body in _reports() for way in range(len(_WAYS))]


def _files() -> list[bytes]:
    keys = [str(text).encode() for key in _vectors("spki.json")["keys"] for name, text in key.items() if name != "id"]
    folder = Path(cryptography_vectors.__file__).parent / "asymmetric/DER_Serialization"
    return keys + [path.read_bytes() for path in sorted(folder.glob("*.der"))]


def _lists() -> list[bytes]:
    noted = KnownPinnedHost("bank.test", _PINS, True, "https://r.example/", 1.0, 2.5)
    static = KnownPinnedHost("a.test", _PINS[:1], False, None, 0.0, 9.0, "static", (bytes(32),), "refuse")
    texts = ["".join(write([noted, static])) for write in (write_json, write_jsonl, write_csv, write_wget2)]
    beyond = "".join(write_json([static])).replace("1970-01-01T00:00:09Z", "9999-12-31T23:59:59-23:59")
    return [text.encode() for text in (*texts, "".join(write_toml([static])), beyond, _CHROMIUM, _CHROMIUM_KEYS)]


def _signed_lists() -> list[bytes]:
    key = {"domainName": "**.a.test", "key": str(_PINS[0]), "expire": 99, "date": "2033-05-18T03:33:20.123456789Z"}
    more = {**key, "domainName": "b.test", "fqdn": "b.test", "last_error": "ü", "expire": -1}
    lists: list[object] = [[key], [key, more], [{**key, "key": f"sha256/{_PINS[1]}"}, 7], {}]
    return [json.dumps(keys).encode() for keys in lists]


def _studies() -> list[bytes]:
    everything = (_VECTORS / "study.toml").read_bytes()
    return [EXAMPLE.encode(), everything + b"\0client,second\na,5\nb,1700\na,77\n"]


TARGETS = {
    "header": Target(header, _headers),
    "host": Target(host, _hosts),
    "report": Target(report, _reports),
    "collected": Target(collected, _sent),
    "pin_file": Target(pin_file, _files),
    "pin_list": Target(pin_list, _lists),
    "signed_list": Target(signed_list, _signed_lists),
    "study": Target(study, _studies),
}
