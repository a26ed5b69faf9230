"""`dynpin check`: real sites on loopback, each with a fault that shows only from outside."""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from dynpin import Pin, PublicKeyPins
from dynpin.lab.loopback import LoopbackServer
from tests.deploy.commands import dynpin
from tests.deploy.servers import Site, make_site

HOST = "www.example.com"
OLD, NEW, NEXT = (Pin(hashlib.sha256(name).digest()) for name in (b"old", b"new", b"next"))
Answer = Callable[[str], tuple[int, dict[str, str], str]]


@contextmanager
def serving(
    answer: Answer,
    site: Site | None,
    address: str = "127.0.0.1",
    port: int = 0,
    choose: Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None] | None = None,
    by_host: Mapping[str, Answer] | None = None,
) -> Iterator[int]:
    """An https server (http without a site) that answers each path as `answer` says, or that of the host; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.headers.get("Host", "").partition(":")[0]
            status, headers, body = (by_host or {}).get(name, answer)(self.path)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body.encode())

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            return

    context = None
    if site is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(site.both)
        context.sni_callback = choose
    with LoopbackServer(Handler, address=address, port=port, context=context) as server:
        yield server.server_port


def everywhere(header: PublicKeyPins | str, **more: str) -> Answer:
    fields = {"Public-Key-Pins": str(header), **{name.replace("_", "-"): value for name, value in more.items()}}
    return lambda path: (200 if path == "/" else 404, fields, "ok")


def check(site: Site, port: int, *options: str, code: int | None = None) -> Any:
    arguments = ["check", f"https://{HOST}:{port}/", "--ca", str(site.roots), "--json", *options]
    if "--address" not in options:
        arguments += ["--address", "127.0.0.1"]
    result = dynpin(*arguments)
    if code is not None:
        assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def faults(seen: Any) -> set[str]:
    return {each["fault"] for each in seen["findings"]}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site", HOST)


def policy(site: Site, *backups: Pin, include_subdomains: bool = False, report_uri: str | None = None) -> PublicKeyPins:
    return PublicKeyPins((Pin.from_file(site.chain), *(backups or (NEW,))), 2592000, include_subdomains, report_uri)


def test_a_sound_site(site: Site) -> None:
    with serving(everywhere(policy(site)), site) as port:
        seen = check(site, port, code=0)
    assert seen["findings"] == []
    page, missing, static = seen["responses"]
    assert (page["status"], missing["status"], static["path"]) == (200, 404, "/favicon.ico")
    assert page["validated_chain"][0] == str(Pin.from_file(site.chain))
    # trustme's servers send the leaf, and the client builds the chain up to the root.
    assert len(page["validated_chain"]) == 2
    assert page["verified"] is True


def test_the_header_is_missing_on_errors(site: Site) -> None:
    sent = {"Public-Key-Pins": str(policy(site))}
    with serving(lambda path: (200, sent, "") if path == "/" else (404, {}, ""), site) as port:
        seen = check(site, port, code=1)
    assert faults(seen) == {"header-missing-on-some-responses"}


def test_another_key_is_deployed_than_is_pinned(site: Site) -> None:
    with serving(everywhere(PublicKeyPins((OLD, NEW), 2592000)), site) as port:
        assert faults(check(site, port, code=1)) == {"no-pin-matches-chain"}


def test_a_site_without_pins(site: Site) -> None:
    with serving(lambda path: (200, {}, ""), site) as port:
        arguments = ["check", f"https://{HOST}:{port}", "--ca", str(site.roots), "--address", "127.0.0.1"]
        result = dynpin(*arguments)
    said = f"sends no pinning header; dynpin init {HOST}:{port} begins to pin it"
    assert (result.exit_code, said in result.stderr) == (1, True)
    assert "No fault" not in result.stdout


def test_a_chain_that_does_not_verify(site: Site, tmp_path: Path) -> None:
    other = make_site(tmp_path / "other", HOST)
    with serving(everywhere(policy(site)), site) as port:
        seen = check(other, port, code=1)
    assert "header-on-invalid-certificate" in faults(seen)
    assert seen["responses"][0]["verified"] is False


def test_two_nodes_with_two_policies_and_two_keys(site: Site, tmp_path: Path) -> None:
    authority = trustme.CA()
    nodes = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        certificate = authority.issue_cert(HOST)
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
        nodes.append(Site(folder, folder, folder / "both.pem", folder, folder / "both.pem"))
    roots = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(roots)
    first = policy(nodes[0])
    with (
        serving(everywhere(first), nodes[0], "127.0.0.1") as port,
        serving(everywhere(f"{first}; x"), nodes[1], "127.0.0.2", port),
    ):
        seen = check(
            Site(tmp_path, roots, roots, roots, roots), port, "--address", "127.0.0.1", "--address", "127.0.0.2"
        )
    # The second node's header means the same, and its key is not the one that is pinned.
    assert faults(seen) == {"no-pin-matches-chain", "directive-unknown"}
    assert {each["address"] for each in seen["responses"]} == {"127.0.0.1", "127.0.0.2"}


def test_the_header_is_missing_on_the_errors_of_the_second_node(site: Site) -> None:
    sent = {"Public-Key-Pins": str(policy(site))}
    with (
        serving(everywhere(policy(site)), site, "127.0.0.1") as port,
        serving(lambda path: (200, sent, "") if path == "/" else (404, {}, ""), site, "127.0.0.2", port),
    ):
        seen = check(site, port, "--address", "127.0.0.1", "--address", "127.0.0.2", code=1)
    assert faults(seen) == {"header-missing-on-some-responses"}


def test_a_node_that_is_silent_is_named(site: Site) -> None:
    with serving(everywhere(policy(site)), site) as port:
        seen = check(site, port, "--address", "127.0.0.1", "--address", "127.0.0.3", code=0)
    assert [line.split()[0] for line in seen["silent"]] == ["127.0.0.3"]


@pytest.mark.parametrize(("status", "dead"), [(204, False), (405, False), (404, True), (500, True)])
def test_the_report_endpoint_is_probed(site: Site, status: int, dead: bool) -> None:
    with serving(lambda path: (status, {}, ""), None) as collector:
        header = policy(site, report_uri=f"http://127.0.0.1:{collector}/r")
        with serving(everywhere(header), site) as port:
            seen = check(site, port)
            silent = check(site, port, "--no-probe")
    assert faults(seen) == {"report-uri-plain-http", *(["report-uri-dead"] if dead else [])}
    assert faults(silent) == {"report-uri-plain-http"}


def test_subdomains_that_the_policy_hits(tmp_path: Path) -> None:
    authority = trustme.CA()
    # The certificate names two subdomains: one shows the same key, the other is somebody else's.
    own = authority.issue_cert(HOST, f"own.{HOST}", f"shop.{HOST}")
    shop = authority.issue_cert(f"shop.{HOST}", f"blog.{HOST}")
    site = make_site(tmp_path, HOST)
    authority.cert_pem.write_to_path(site.roots)
    own.private_key_and_cert_chain_pem.write_to_path(site.both)
    site.chain.write_bytes(own.cert_chain_pems[0].bytes())
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shop.configure_cert(theirs)

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name in (f"shop.{HOST}", f"blog.{HOST}"):
            connection.context = theirs

    with serving(everywhere(policy(site, include_subdomains=True)), site, choose=choose) as port:
        seen = check(site, port, code=1)
        more = check(site, port, "--subdomain", f"blog.{HOST}", code=1)
    with serving(everywhere(policy(site)), site, choose=choose) as port:
        assert faults(check(site, port, code=0)) == set()
    assert [each["message"].split()[0] for each in seen["findings"]] == [f"shop.{HOST}"]
    assert {each["message"].split()[0] for each in more["findings"]} == {f"shop.{HOST}", f"blog.{HOST}"}


@pytest.mark.parametrize("name", [f"{'a' * 70}.{HOST}", f"a..{HOST}", f".{HOST}"])
def test_a_name_that_no_network_knows_silences_nothing(name: str, tmp_path: Path) -> None:
    site = site_of_names(tmp_path, x509.SubjectAlternativeName([x509.DNSName(HOST), x509.DNSName(name)]))
    with serving(everywhere(policy(site, NEW, include_subdomains=True)), site) as port:
        assert faults(check(site, port, code=0)) == set()


def test_a_kind_of_name_that_nobody_reads_silences_nothing(tmp_path: Path) -> None:
    # RFC 5280 §4.2.1.6: beside the host an x400Address, which cryptography does not read.
    host = HOST.encode()
    names = bytes([0x82, len(host)]) + host + b"\xa3\x00"
    oid = x509.SubjectAlternativeName.oid
    site = site_of_names(tmp_path, x509.UnrecognizedExtension(oid, bytes([0x30, len(names)]) + names))
    with serving(everywhere(policy(site, NEW, include_subdomains=True)), site) as port:
        assert faults(check(site, port, code=0)) == set()


def site_of_names(folder: Path, names: x509.ExtensionType) -> Site:
    """A site whose certificate has these alternative names: no library makes such, and a careless CA may sign them."""
    authority = trustme.CA()
    issued = x509.load_pem_x509_certificate(authority.issue_cert(HOST).cert_chain_pems[0].bytes())
    key = trustme_key(authority)
    own = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        issued.issuer, issued.subject, own.public_key(), 1, issued.not_valid_before_utc, issued.not_valid_after_utc
    )
    for extension in issued.extensions:
        if not isinstance(extension.value, x509.SubjectAlternativeName | x509.SubjectKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    made = builder.add_extension(names, critical=False).sign(key, SHA256())
    site = make_site(folder, HOST)
    authority.cert_pem.write_to_path(site.roots)
    site.chain.write_bytes(made.public_bytes(Encoding.PEM))
    site.both.write_bytes(
        own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    )
    return site


def trustme_key(authority: trustme.CA) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def test_a_report_uri_that_no_network_knows_silences_nothing(site: Site) -> None:
    uri = f"https://{'a' * 70}.test/"
    with serving(everywhere(policy(site, NEW, report_uri=uri)), site) as port:
        assert faults(check(site, port, code=0)) == set()


def test_the_inventory_knows_every_pin(site: Site, tmp_path: Path) -> None:
    backup = make_site(tmp_path / "backup", HOST)
    pinned = policy(site, Pin.from_file(backup.chain))
    with serving(everywhere(pinned), site) as port:
        assert faults(check(site, port, "--key", str(site.chain), "--key", str(backup.chain), code=0)) == set()
        assert faults(check(site, port, "--key", str(site.chain), code=1)) == {"hostile-pinning-ransompkp"}
        seen = check(
            site, port, "--key", str(backup.csr if hasattr(backup, "csr") else make_site(tmp_path / "x").chain)
        )
    assert faults(seen) == {"hostile-pinning-by-misissued-certificate"}


def test_the_history_tells_who_is_locked_out(site: Site, tmp_path: Path) -> None:
    history = tmp_path / "history.json"
    old = make_site(tmp_path / "old", HOST)
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    sent = str(policy(old))
    kept = ["--history", str(history), "--now", yesterday]
    assert dynpin("rotate", "record", "--host", HOST, "--header", sent, "--chain", str(old.chain), *kept).exit_code == 0
    with serving(everywhere(policy(site)), site) as port:
        seen = check(site, port, "--history", str(history), code=1)
    assert "rotation-too-early" in faults(seen)


def test_the_history_tells_that_the_mode_has_changed(site: Site, tmp_path: Path) -> None:
    # An upgrade of a library that has another default: by the live header alone nothing is wrong.
    history = tmp_path / "history.json"
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    recorded = ("--host", HOST, "--header", str(policy(site)), "--chain", str(site.chain))
    assert dynpin("rotate", "record", *recorded, "--history", str(history), "--now", yesterday).exit_code == 0
    kept = ("--history", str(history), "--no-probe")
    tried = str(PublicKeyPins(policy(site).pins, None, report_uri="https://reports.example.net/r", report_only=True))
    both = everywhere(policy(site), Public_Key_Pins_Report_Only=tried)

    def flipped(path: str) -> tuple[int, dict[str, str], str]:
        return 200, {"Public-Key-Pins-Report-Only": tried}, "ok"

    with serving(flipped, site) as port:
        seen = check(site, port, *kept, code=1)
        assert faults(seen) == {"default-mode-flipped-on-upgrade", "history-differs"}
        told = [each["message"] for each in seen["findings"] if each["fault"] == "history-differs"]
        assert "it is Public-Key-Pins-Report-Only, not Public-Key-Pins" in told[0]
        assert faults(check(site, port, "--no-probe", code=0)) == set()
    # A set of pins that is tried out beside it is no change.
    with serving(both, site) as port:
        assert "default-mode-flipped-on-upgrade" not in faults(check(site, port, *kept))


def test_cookies_and_scripts_of_the_page(site: Site) -> None:
    page = '<script src="https://cdn.example.net/x.js"></script><script src="/own.js"></script>'
    answer = everywhere(policy(site), Content_Type="text/html", Set_Cookie="a=b; Domain=example.com; Secure")
    with serving(lambda path: (*answer(path)[:2], page), site) as port:
        seen = check(site, port, code=0)
    assert faults(seen) == {"pins-without-includeSubDomains-leak-cookies", "unpinned-active-content"}


def test_the_header_over_plain_http(site: Site) -> None:
    header = everywhere(policy(site))
    with serving(header, None) as plain, serving(header, site) as port:
        assert faults(check(site, port, "--http-port", str(plain), code=1)) == {"header-over-http"}


def test_a_person_sees_the_responses_and_the_findings(site: Site) -> None:
    with serving(everywhere(PublicKeyPins(policy(site).pins, 300)), site) as port:
        arguments = ["check", f"https://{HOST}:{port}", "--ca", str(site.roots), "--address", "127.0.0.1"]
        result = dynpin(*arguments)
        log = json.loads(dynpin(*arguments, "--sarif").stdout)
    assert result.exit_code == 1
    assert "127.0.0.1        https 200 /  header" in result.stdout
    assert "max-age-too-short" in result.stdout
    assert "looking at" in result.stderr
    assert log["runs"][0]["results"][0]["ruleId"] == "max-age-too-short"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("http://a.example/",), "not an https URL"),
        (("https://127.0.0.1:8443/",), "127.0.0.1 is an address"),
        (("https://a.example/", "--ca", "nowhere.pem"), "nowhere.pem"),
        (
            ("https://www.example.com:1/", "--address", "127.0.0.1"),
            "does not answer: 127.0.0.1 port 1: Connection refused",
        ),
        (("https://a.example/", "--address", "127.0.0.1", "--key", "nowhere.pem"), "nowhere.pem"),
    ],
)
def test_wrong_usage_and_what_does_not_answer(arguments: tuple[str, ...], said: str) -> None:
    result = dynpin("check", *arguments)
    assert (result.exit_code, said in result.stderr, "Traceback" in result.output) == (2, True, False)
