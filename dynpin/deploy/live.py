"""A look at a live site: every address, several responses, the chains, the report endpoint, the subdomains.

It opens connections and enforces nothing: it looks, and the linter judges.
"""

from __future__ import annotations

import http.client
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from urllib.parse import urlsplit

from cryptography import x509

from dynpin._version import __version__
from dynpin.clientstore.enforcement import unverified_chain, verified_chain
from dynpin.deploy.lint import Circumstances
from dynpin.deploy.lint.sources import HeaderField, fields_of_response
from dynpin.errors import InvalidHeader, InvalidHost
from dynpin.header import REPORT_ONLY_NAME, PublicKeyPins
from dynpin.hosts import canonical_host, superdomains
from dynpin.pins import chain_pins

__all__ = ["Look", "Response", "Site", "addresses_of", "look_at"]

MAX_ADDRESSES = 16
MAX_SUBDOMAINS = 32
MAX_BODY = 1 << 20


@dataclass(frozen=True, slots=True)
class Site:
    """What to look at, and how.

    Attributes:
        host: the name, in the certificate and in the request.
        port: the https port; `http_port` that of plain http, or None not to look there.
        path: the page that is looked at first; `paths` are others.
        addresses: where the host is reached.
        context: verifies the chains.
        subdomains: names to look at besides those that the certificate tells of.
        timeout: seconds to wait for each connection.
        by_dns: whether the addresses are those of the DNS; else they were given, and the subdomains are looked for
            there too.
        probes_report_uri: whether the report endpoint is asked for a sign of life.
    """

    host: str
    port: int
    addresses: tuple[str, ...]
    context: ssl.SSLContext
    path: str = "/"
    paths: tuple[str, ...] = ("/favicon.ico",)
    http_port: int | None = None
    subdomains: tuple[str, ...] = ()
    timeout: float = 10.0
    by_dns: bool = True
    probes_report_uri: bool = True


@dataclass(frozen=True, slots=True)
class Response:
    """One response of one node."""

    address: str
    scheme: str
    path: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_verified: bool
    validated: tuple[bytes, ...] = ()
    served: tuple[bytes, ...] = ()


@dataclass(slots=True)
class Look:
    """What was seen: the fields to lint with their circumstances, and what did not answer."""

    responses: list[Response] = field(default_factory=list[Response])
    fields: list[HeaderField] = field(default_factory=list[HeaderField])
    silent: list[str] = field(default_factory=list[str])


def addresses_of(host: str, port: int) -> tuple[str, ...]:
    """Every address of a host.

    Raises:
        OSError: where the name does not resolve.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(each[4][0]) for each in found))[:MAX_ADDRESSES]


def look_at(site: Site, known: Circumstances, say: Callable[[str], None]) -> Look:
    """Look at a site from every side.

    Args:
        site: what to look at.
        known: circumstances that are known already, such as the keys of the inventory.
        say: is told of each step, for whoever waits.
    """
    look = Look()
    # A page, what does not exist, and what is usually static: three places that are often configured apart.
    paths = dict.fromkeys([site.path, f"/dynpin-check-{secrets.token_hex(6)}", *site.paths])
    for address in site.addresses:
        for path in paths:
            say(f"https://{site.host}:{site.port}{path} at {address}")
            try:
                look.responses.append(_fetch(site, address, path))
            except (OSError, http.client.HTTPException) as error:
                look.silent.append(f"{address} port {site.port}: {_in_words(error)}")
                break
    if site.http_port is not None and site.addresses:
        say(f"http://{site.host}:{site.http_port}{site.path}")
        try:
            look.responses.append(_fetch_plainly(site, site.addresses[0], site.http_port))
        except (OSError, http.client.HTTPException):
            look.silent.append(f"{site.addresses[0]} port {site.http_port}: no plain http")
    look.fields = list(_Fields(site, look, known, say).all())
    return look


def _fetch(site: Site, address: str, path: str) -> Response:
    try:
        return _ask(site, address, path, site.context)
    except ssl.SSLCertVerificationError:
        # The chain is faulty, which is a finding; what such a site sends is still of interest.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return _ask(site, address, path, context)


def _ask(site: Site, address: str, path: str, context: ssl.SSLContext) -> Response:
    plain = socket.create_connection((address, site.port), site.timeout)
    with plain, context.wrap_socket(plain, server_hostname=site.host) as tls:
        is_verified = context.verify_mode is ssl.CERT_REQUIRED
        validated = verified_chain(tls) if is_verified else ()
        served = unverified_chain(tls)
        status, headers, body = _exchange(tls, site.host, site.port, "GET", path)
    return Response(address, "https", path, status, headers, body, is_verified, validated, served)


def _fetch_plainly(site: Site, address: str, port: int) -> Response:
    with socket.create_connection((address, port), site.timeout) as plain:
        status, headers, body = _exchange(plain, site.host, port, "GET", site.path)
    return Response(address, "http", site.path, status, headers, body, is_verified=False)


def _exchange(
    connected: socket.socket, host: str, port: int, method: str, path: str
) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    connection = http.client.HTTPConnection(host, port)
    connection.sock = connected
    connection.request(method, path, headers={"User-Agent": f"dynpin/{__version__}", "Connection": "close"})
    response = connection.getresponse()
    return response.status, tuple(response.getheaders()), response.read(MAX_BODY)


class _Fields:
    """The fields that were seen, each with its circumstances."""

    def __init__(self, site: Site, look: Look, known: Circumstances, say: Callable[[str], None]) -> None:
        self.site = site
        self.known = known
        self.say = say
        self.responses = look.responses
        self.secure = [response for response in look.responses if response.scheme == "https"]
        self.pages = [response for response in self.secure if response.path == site.path]

    def all(self) -> Iterator[HeaderField]:
        for index, page in enumerate(self.pages):
            # What concerns the whole site is said once, of its first node.
            for each in self.of(page, _circumstances(self.site, page, self.known)):
                yield each if index else self.whole_site(each, page)
        # A header on another response alone is a header too.
        if not any(self.of(page, self.known) for page in self.pages):
            for response in self.secure:
                found = self.of(response, _circumstances(self.site, response, self.known))
                if found:
                    yield from (self.whole_site(each, response) for each in found)
                    break
        for response in self.responses:
            if response.scheme == "http":
                yield from self.of(response, replace(self.known, scheme="http", host=self.site.host))

    def of(self, response: Response, circumstances: Circumstances) -> list[HeaderField]:
        port, usual = (self.site.port, 443) if response.scheme == "https" else (self.site.http_port, 80)
        name = self.site.host if port == usual else f"{self.site.host}:{port}"
        source = f"{response.scheme}://{name}{response.path} at {response.address}"
        return fields_of_response(response.headers, source, circumstances)

    def whole_site(self, each: HeaderField, page: Response) -> HeaderField:
        values = [_value(response, each.name) for response in self.pages]
        circumstances = replace(
            each.circumstances,
            paths=self.by_path(each.name),
            nodes=tuple(value or "" for value in values) if len(values) > 1 else (),
        )
        try:
            header = PublicKeyPins.parse(each.value or "", report_only=each.name == REPORT_ONLY_NAME)
        except InvalidHeader:
            return replace(each, circumstances=circumstances)
        if header.include_subdomains:
            subdomains = _subdomains(self.site, page, self.say)
            circumstances = replace(circumstances, subdomain_chain_pins=subdomains)
        if header.report_uri and self.site.probes_report_uri:
            self.say(f"report endpoint {header.report_uri}")
            circumstances = replace(circumstances, report_uri_status=_probe(header.report_uri, self.site))
        return replace(each, circumstances=circumstances)

    def by_path(self, name: str) -> dict[str, str | None]:
        """The value by path; None where a node lacks it that has it on the page: one that does not is told of apart."""
        having = {page.address for page in self.pages if _value(page, name) is not None}
        found: dict[str, str | None] = {}
        for response in self.secure:
            if response.address in having or not having:
                value = _value(response, name)
                found[response.path] = value and found.get(response.path, value)
        return found


def _value(response: Response, name: str) -> str | None:
    return next((value for key, value in response.headers if key.lower() == name.lower()), None)


def _circumstances(site: Site, page: Response, known: Circumstances) -> Circumstances:
    left = None
    if page.served:
        left = x509.load_der_x509_certificate(page.served[0]).not_valid_after_utc.timestamp() - time.time()
    return replace(
        known,
        scheme="https",
        host=site.host,
        chain_valid=page.is_verified,
        chain_pins=tuple(str(pin) for pin in chain_pins(page.validated or page.served)),
        served_chain_pins=tuple(str(pin) for pin in chain_pins(page.served)),
        certificates=tuple(ssl.DER_cert_to_PEM_cert(der) for der in page.served),
        leaf_not_after_in_s=left,
        cookie_domain=_cookie_domain(page),
        script_hosts=_script_hosts(page),
    )


def _subdomains(site: Site, page: Response, say: Callable[[str], None]) -> dict[str, tuple[str, ...]]:
    """The chains of the subdomains that are known: those of the caller, and those that the certificate names."""
    named: list[str] = list(site.subdomains)
    if page.served:
        try:
            names = x509.load_der_x509_certificate(page.served[0]).extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
            named += names.value.get_values_for_type(x509.DNSName)
        except x509.ExtensionNotFound:
            pass
    found: dict[str, tuple[str, ...]] = {}
    for name in list(dict.fromkeys(named))[:MAX_SUBDOMAINS]:
        if "*" in name or site.host not in superdomains(name) or not _is_host(name):
            continue
        say(f"subdomain {name}")
        try:
            with (
                socket.create_connection(
                    (name if site.by_dns else site.addresses[0], site.port), site.timeout
                ) as plain,
                site.context.wrap_socket(plain, server_hostname=name) as tls,
            ):
                found[name] = tuple(str(pin) for pin in chain_pins(verified_chain(tls)))
        except OSError:
            continue  # who cannot be reached today cannot be locked out today
    return found


def _is_host(name: str) -> bool:
    """Whether this can be a host's name; what a certificate names may be none, which sockets refuse in odd ways."""
    try:
        canonical_host(name)
    except InvalidHost:
        return False
    return True


def _probe(uri: str, site: Site) -> str:
    """An HTTP status, or the failure in words."""
    parts = urlsplit(uri)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((host, port), site.timeout) as plain:
            if parts.scheme == "http":
                return str(_exchange(plain, host, port, "HEAD", parts.path or "/")[0])
            with site.context.wrap_socket(plain, server_hostname=host) as tls:
                return str(_exchange(tls, host, port, "HEAD", parts.path or "/")[0])
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        return _in_words(error)


def _in_words(error: Exception) -> str:
    """Without the number that the system gives it."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _cookie_domain(page: Response) -> str | None:
    for name, value in page.headers:
        if name.lower() == "set-cookie":
            for attribute in value.split(";")[1:]:
                key, _, domain = attribute.strip().partition("=")
                if key.lower() == "domain" and domain:
                    return domain
    return None


class _Scripts(HTMLParser):
    """Collects where a page's scripts come from."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: dict[str, None] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        source = dict(attrs).get("src")
        if tag == "script" and source:
            try:
                host = urlsplit(source).hostname
            except ValueError:
                return
            if host:
                self.hosts[host] = None


def _script_hosts(page: Response) -> tuple[str, ...]:
    kind = next((value for name, value in page.headers if name.lower() == "content-type"), "")
    if "html" not in kind:
        return ()
    scripts = _Scripts()
    scripts.feed(page.body.decode("utf-8", "replace"))
    return tuple(scripts.hosts)
