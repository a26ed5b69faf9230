"""Make the fields to lint from the answers of a live site, each with its circumstances."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

from cryptography import x509

from dynpin.errors import InvalidHost, UnpinnableKey
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME
from dynpin.hosts import canonical_host, superdomains
from dynpin.middleware.policy import Chain, certificate_names
from dynpin.pins import chain_pins

from .lint import Circumstances, HeaderField, Observed, fields_of_response
from .lint.holdings import observed_in_chain
from .live import Look, Site, probes_of, subdomain_chains
from .nodes import NodeLook

__all__ = ["fields_of_look", "node_name"]

MAX_SUBDOMAINS = 32


def fields_of_look(
    site: Site, look: Look, known: Circumstances, now: float, say: Callable[[str], None]
) -> tuple[HeaderField, ...]:
    """The fields that a site sends. If it sends none over TLS: one without a value, which describes the answers.

    Args:
        site: the site.
        look: the answers.
        known: circumstances that are already known, such as the keys of the inventory.
        now: seconds since the epoch, UTC.
        say: called with each further step, to show progress.
    """
    return tuple(_LiveFields(site, look, known, now, say).fields())


def node_name(site: Site, look: NodeLook) -> str:
    """The name of a node in messages: its address, with its port if that is not the site's."""
    usual = site.port if look.scheme == "https" else site.http_port
    return look.address if look.port == usual else str(look.node)


class _LiveFields:
    def __init__(self, site: Site, look: Look, known: Circumstances, now: float, say: Callable[[str], None]) -> None:
        self.site, self.look, self.known, self.now, self.say = site, look, known, now, say
        self.pages = [response for response in look.secure if response.path == site.path]

    def fields(self) -> Iterator[HeaderField]:
        found = list(self._of_pages() or self._of_others())
        yield from self._with_what_is_asked(found)
        if not found and self.look.secure:
            first = self.look.secure[0]
            observed = Observed("header-missing", self._absence())
            circumstances = self._circumstances(first)
            circumstances = replace(circumstances, observed=(*circumstances.observed, observed))
            yield HeaderField(self._source(first), ENFORCE_NAME, None, circumstances)
        for response in self.look.responses:
            if response.scheme == "http":
                yield from self._of(response, replace(self.known, scheme="http", host=self.site.host))

    def _of_pages(self) -> list[HeaderField]:
        found: list[HeaderField] = []
        for index, page in enumerate(self.pages):
            fields = self._of(page, self._circumstances(page))
            # Facts about the whole site are reported once, for its first node.
            found += fields if index else [self._with_other_answers(each) for each in fields]
        return found

    def _of_others(self) -> list[HeaderField]:
        """The headers that are only in other responses; they count as well."""
        for response in self.look.secure:
            found = self._of(response, self._circumstances(response))
            if found:
                return [self._with_other_answers(each) for each in found]
        return []

    def _of(self, response: NodeLook, circumstances: Circumstances) -> list[HeaderField]:
        return fields_of_response(response.headers, self._source(response), circumstances)

    def _source(self, response: NodeLook) -> str:
        port, usual = (self.site.port, 443) if response.scheme == "https" else (self.site.http_port, 80)
        name = self.site.host if port == usual else f"{self.site.host}:{port}"
        return f"{response.scheme}://{name}{response.path} at {node_name(self.site, response)}"

    def _circumstances(self, page: NodeLook) -> Circumstances:
        until = _not_after(page.served)
        return replace(
            self.known,
            scheme="https",
            host=self.site.host,
            chain_valid=page.is_verified,
            chain_failure=page.failure,
            chain_pins=tuple(str(pin) for pin in chain_pins(page.validated or page.served)),
            served_chain_pins=tuple(str(pin) for pin in chain_pins(page.served)),
            certificates=tuple(ssl.DER_cert_to_PEM_cert(der) for der in page.served),
            leaf_not_after_in_s=None if until is None else until - self.now,
            cookie_domain=_cookie_domain(page),
            script_hosts=_script_hosts(page),
            observed=(*self.known.observed, *_order_of(page, self.site, self.now)),
        )

    def _with_other_answers(self, each: HeaderField) -> HeaderField:
        values = [_value(response, each.name) for response in self.pages]
        nodes = tuple(value or "" for value in values) if len(values) > 1 else ()
        circumstances = replace(each.circumstances, paths=self._by_path(each.name), nodes=nodes)
        return replace(each, circumstances=circumstances)

    def _by_path(self, name: str) -> dict[str, str | None]:
        """The value by path; None if it is missing at a node that sends it with the page."""
        having = {page.node for page in self.pages if _value(page, name) is not None}
        found: dict[str, str | None] = {}
        for response in self.look.secure:
            if response.node in having or not having:
                value = _value(response, name)
                found[response.path] = value and found.get(response.path, value)
        return found

    def _with_what_is_asked(self, found: Sequence[HeaderField]) -> Iterator[HeaderField]:
        """The fields, with the chains of subdomains and the answers of report endpoints; each is requested once."""
        # Differences between nodes are reported elsewhere, so the first header of each name is enough here.
        first = {each.name: each for each in reversed(found)}
        headers = {name: header for name, each in first.items() if (header := each.header) is not None}
        names = self._subdomains() if any(header.include_subdomains for header in headers.values()) else ()
        chains = subdomain_chains(self.site, names, self.say)
        probes = probes_of(self.site, [header.report_uri for header in headers.values() if header.report_uri], self.say)
        for each in found:
            header = headers.get(each.name)
            if header is None or each is not first[each.name]:
                yield each
                continue
            yield replace(
                each,
                circumstances=replace(
                    each.circumstances,
                    subdomain_chain_pins=chains if header.include_subdomains else {},
                    report_uri_status=probes.get(header.report_uri or ""),
                ),
            )

    def _subdomains(self) -> tuple[str, ...]:
        """The known subdomains: those of the caller, and those in the certificates."""
        named = list(self.site.subdomains)
        for leaf in dict.fromkeys(page.served[0] for page in self.pages if page.served):
            names = certificate_names(leaf)
            named += () if names is None else names.dns
        return tuple(
            name
            for name in list(dict.fromkeys(named))[:MAX_SUBDOMAINS]
            if "*" not in name and _is_host(name) and self.site.host in superdomains(name)
        )

    def _absence(self) -> str:
        """What the answers without a field look like, and what that suggests."""
        statuses: dict[str, str] = {}
        for response in self.look.secure:
            statuses.setdefault(f"{response.path} ({response.status})", node_name(self.site, response))
        shown = ", ".join(list(statuses)[:6])
        nodes = dict.fromkeys(node_name(self.site, response) for response in self.look.secure)
        found = [f"The answers to {shown} at {', '.join(nodes)} have none"]
        page = next(iter(self.pages), None)
        target = None if page is None else next(iter(page.values("Location")), None)
        if page is not None and target is not None and 300 <= (page.status or 0) < 400:
            there = urljoin(f"https://{self.site.host}{page.path}", target)
            is_elsewhere = urlsplit(there).hostname != self.site.host
            found.append(
                f"{page.path} leads to {there}"
                + (", another host, which dynpin check looks at on its own" if is_elsewhere else "")
                + "; a redirect that the proxy answers itself never reaches the app"
            )
        plain = [response for response in self.look.responses if response.scheme == "http"]
        if any(_value(response, name) for response in plain for name in (ENFORCE_NAME, REPORT_ONLY_NAME)):
            found.append(
                "Over plain http there is one: the app takes http for https, or the proxy has the two mixed up"
            )
        elif plain:
            found.append("Over plain http there is none either, as it should be")
        if any((page.status or 0) >= 500 for page in self.pages):
            found.append("The page is a server's error: the proxy may not reach the app at all")
        return ". ".join(found)


def _value(response: NodeLook, name: str) -> str | None:
    return next(iter(response.values(name)), None)


def _not_after(served: Sequence[bytes]) -> float | None:
    """When the server's certificate expires; None if there is none, or none that can be read."""
    try:
        return x509.load_der_x509_certificate(served[0]).not_valid_after_utc.timestamp() if served else None
    except (ValueError, x509.InvalidVersion):
        return None


def _order_of(page: NodeLook, site: Site, now: float) -> Iterator[Observed]:
    """The faults in the order of a served chain; OpenSSL judges its names and dates."""
    try:
        chain = Chain.of(page.served, f"{site.host} at {node_name(site, page)}")
    except UnpinnableKey:
        return
    for observed in observed_in_chain(chain, (), now):
        if not observed.fault.startswith("certificate-"):
            yield observed


def _is_host(name: str) -> bool:
    """Whether this can be a host's name. A certificate may contain other names, on which sockets fail oddly."""
    try:
        canonical_host(name)
    except InvalidHost:
        return False
    return True


def _cookie_domain(page: NodeLook) -> str | None:
    for value in page.values("Set-Cookie"):
        for attribute in value.split(";")[1:]:
            key, _, domain = attribute.strip().partition("=")
            if key.lower() == "domain" and domain:
                return domain
    return None


class _Scripts(HTMLParser):
    """Collects the hosts of a page's scripts."""

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


def _script_hosts(page: NodeLook) -> tuple[str, ...]:
    if "html" not in (_value(page, "Content-Type") or ""):
        return ()
    scripts = _Scripts()
    scripts.feed(page.body.decode("utf-8", "replace"))
    return tuple(scripts.hosts)
