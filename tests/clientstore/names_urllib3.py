"""The rows of test_names.py for http.client, urllib.request, urllib3 and requests."""

from __future__ import annotations

import hashlib
import socket
import ssl
import sys
import urllib.request
from collections.abc import Callable
from typing import Any

import requests
from urllib3.connection import HTTPSConnection

from dynpin.clientstore.http_client import PinnedHTTPSConnection, PinnedHTTPSHandler
from dynpin.clientstore.requests import PinnedAdapter, PinnedSession
from dynpin.clientstore.urllib3 import pinned_pool_manager

from .names import ASKED, OTHER, Row
from .sites import Proxy
from .world import World

__all__ = ["ROWS"]

SECRET = {"Authorization": "Bearer secret"}
IP = "127.0.0.1"

Send = Callable[[World, int], object]


def http_client(host: str, target: str = "/", *, host_field: str | None = None, tunnel: str | None = None) -> Send:
    def send(world: World, port: int) -> object:
        headers = {**SECRET, **({} if host_field is None else {"Host": host_field})}
        with Proxy() as proxy:
            connection = PinnedHTTPSConnection(
                host, proxy.port if tunnel else port, store=world.store, context=world.plain_context(), timeout=60
            )
            if tunnel is not None:
                connection.set_tunnel(tunnel, port)
            try:
                connection.request("GET", target.format(port=port), headers=headers)
                return connection.getresponse().read()
            finally:
                connection.close()

    return send


def urllib_request(host: str, *, host_field: str | None = None) -> Send:
    def send(world: World, port: int) -> object:
        handler = PinnedHTTPSHandler(world.store, context=world.plain_context())
        opener = urllib.request.build_opener(handler, urllib.request.ProxyHandler({}))
        headers = {**SECRET, **({} if host_field is None else {"Host": host_field})}
        with opener.open(urllib.request.Request(f"https://{host}:{port}/", headers=headers), timeout=60) as response:
            return response.read()

    return send


def _fingerprint(world: World) -> str:
    pem = world.stolen_name.cert_chain_pems[0].bytes().decode()
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def urllib3_manager(host: str, *, host_field: str | None = None, proxied: bool = False, **options: Any) -> Send:
    """Options of the manager; a fingerprint is set on the manager."""

    def send(world: World, port: int) -> object:
        given = {name: value(world) if callable(value) else value for name, value in options.items()}
        headers = {**SECRET, **({} if host_field is None else {"Host": host_field})}
        with Proxy(world.honest.issue_cert("proxy.test")) as proxy:
            if proxied:
                given |= {"proxy_url": proxy.url, "proxy_ssl_context": world.plain_context()}
            with pinned_pool_manager(world.store, ssl_context=world.plain_context(), retries=False, **given) as manager:
                return manager.request("GET", f"https://{host}:{port}/", headers=headers).data

    return send


def urllib3_pool(host: str, **options: Any) -> Send:
    """Options of one pool of a manager that has none."""

    def send(world: World, port: int) -> object:
        given = {name: value(world) if callable(value) else value for name, value in options.items()}
        with pinned_pool_manager(world.store, ssl_context=world.plain_context(), retries=False) as manager:
            pool = manager.connection_from_host(host, port, scheme="https", pool_kwargs=given)
            return pool.request("GET", "/", headers=SECRET).data

    return send


def urllib3_connection(host: str, **attributes: Any) -> Send:
    """Attributes of one connection, set after it was made."""

    def send(world: World, port: int) -> object:
        with pinned_pool_manager(world.store, ssl_context=world.plain_context(), retries=False) as manager:
            pool: Any = manager.connection_from_host(host, port, scheme="https")
            connection = pool.ConnectionCls(host, port=port, ssl_context=world.plain_context(), timeout=60)
            for name, value in attributes.items():
                setattr(connection, name, value(world) if callable(value) else value)
            try:
                connection.request("GET", "/", headers=SECRET)
                return connection.getresponse().data
            finally:
                connection.close()

    return send


class _AssertsWhileItConnects(HTTPSConnection):
    def connect(self) -> None:
        self.assert_hostname = ASKED
        super().connect()


def _of_a_class_of_its_own(world: World, port: int) -> object:
    with pinned_pool_manager(world.store, ssl_context=world.plain_context(), retries=False) as manager:
        pool: Any = manager.connection_from_host(IP, port, scheme="https")
        pool.ConnectionCls = _AssertsWhileItConnects
        return pool.request("GET", "/", headers=SECRET).data


def _host_set_later(world: World, port: int) -> object:
    connection = PinnedHTTPSConnection(OTHER, port, store=world.store, context=world.plain_context(), timeout=60)
    connection.connect()
    connection.host = ASKED
    try:
        connection.request("GET", "/", headers=SECRET)
        return connection.getresponse().read()
    finally:
        connection.close()


def socket_set(*, connected: bool = False, closed: bool = False) -> Send:
    """A socket of the user's own, at once or in the place of one that was checked."""

    def send(world: World, port: int) -> object:
        connection = PinnedHTTPSConnection(ASKED, port, store=world.store, context=world.plain_context(), timeout=60)
        try:
            if connected:
                connection.connect()
                connection.sock.close()
            if closed:
                connection.close()
            raw = socket.create_connection((IP, port), timeout=60)
            connection.sock = world.plain_context().wrap_socket(raw, server_hostname=ASKED)
            connection.request("GET", "/", headers=SECRET)
            return connection.getresponse().read()
        finally:
            connection.close()

    return send


def by_requests(host: str, *, host_field: str | None = None, adapter: type[PinnedAdapter] = PinnedAdapter) -> Send:
    def send(world: World, port: int) -> object:
        headers = {**SECRET, **({} if host_field is None else {"Host": host_field})}
        with requests.Session() as session:
            session.trust_env = False
            session.mount("https://", adapter(world.store, context=world.plain_context()))
            return session.get(f"https://{host}:{port}/", headers=headers, timeout=60).content

    return send


class _NameOfTheHostField(PinnedAdapter):
    """Like HostHeaderSSLAdapter of requests-toolbelt."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        self.poolmanager.connection_pool_kw["assert_hostname"] = request.headers["Host"]
        return super().send(request, *args, **options)


def _pinned_session(world: World, port: int) -> object:
    with PinnedSession(world.store, context=world.plain_context()) as session:
        session.trust_env = False
        return session.get(f"https://{IP}:{port}/", headers={**SECRET, "Host": ASKED}, timeout=60).content


FASS, FASZ = "fass.test", "xn--fa-hia.test"
BUECHER = "xn--bcher-kva.test"

ROWS = [
    Row("http.client", "a Host field over the TLS of another name", ASKED, OTHER, http_client(OTHER, host_field=ASKED)),
    Row("http.client", "a Host field with a port", ASKED, OTHER, http_client(OTHER, host_field=f"{ASKED}:443")),
    Row("http.client", "a Host field at an IP address", ASKED, IP, http_client(IP, host_field=ASKED)),
    Row(
        "http.client",
        "the absolute form of another URL",
        ASKED,
        OTHER,
        http_client(OTHER, f"https://{ASKED}:{{port}}/"),
    ),
    Row("http.client", "a Host field behind CONNECT", ASKED, OTHER, http_client(IP, host_field=ASKED, tunnel=OTHER)),
    Row("http.client", "faß.test", FASZ, FASS, http_client("faß.test")),
    Row("http.client", "the A-label of faß.test", FASZ, FASZ, http_client(FASZ)),
    Row("http.client", "bücher.test", BUECHER, BUECHER, http_client("bücher.test")),
    Row("http.client", "capitals", ASKED, ASKED, http_client(ASKED.upper())),
    Row(
        "http.client", "a Host field of the same name", ASKED, ASKED, http_client(ASKED, host_field=f"{ASKED.upper()}.")
    ),
    Row(
        "http.client",
        "the absolute form of the same URL",
        ASKED,
        ASKED,
        http_client(ASKED, f"https://{ASKED}:{{port}}/"),
    ),
    Row("http.client", "another host, set when it was connected", ASKED, OTHER, _host_set_later),
    Row("http.client", "a socket of the user's own", ASKED, ASKED, socket_set(), taken=False),
    Row("http.client", "another socket than the checked one", ASKED, ASKED, socket_set(connected=True), taken=False),
    Row(
        "http.client",
        "another socket after a close",
        ASKED,
        ASKED,
        socket_set(connected=True, closed=True),
        taken=False,
    ),
    Row(
        "urllib.request",
        "a Host field over the TLS of another name",
        ASKED,
        OTHER,
        urllib_request(OTHER, host_field=ASKED),
    ),
    Row("urllib.request", "a Host field at an IP address", ASKED, IP, urllib_request(IP, host_field=ASKED)),
    Row("urllib.request", "faß.test", FASZ, FASS, urllib_request("faß.test")),
    Row("urllib.request", "bücher.test", BUECHER, BUECHER, urllib_request("bücher.test")),
    Row("urllib.request", "capitals", ASKED, ASKED, urllib_request(ASKED.upper())),
    Row("urllib3", "server_hostname", ASKED, OTHER, urllib3_manager(ASKED, server_hostname=OTHER)),
    Row("urllib3", "server_hostname of a pool", ASKED, OTHER, urllib3_pool(ASKED, server_hostname=OTHER)),
    Row("urllib3", "server_hostname at an IP address", IP, ASKED, urllib3_manager(IP, server_hostname=ASKED)),
    Row("urllib3", "assert_hostname", OTHER, ASKED, urllib3_manager(ASKED, assert_hostname=OTHER), taken=False),
    Row("urllib3", "assert_hostname of a pool", OTHER, ASKED, urllib3_pool(ASKED, assert_hostname=OTHER), taken=False),
    Row("urllib3", "assert_hostname at an IP address", ASKED, IP, urllib3_pool(IP, assert_hostname=ASKED), taken=False),
    Row("urllib3", "assert_hostname=False", ASKED, ASKED, urllib3_manager(ASKED, assert_hostname=False), taken=False),
    Row(
        "urllib3",
        "assert_hostname=False of a pool",
        ASKED,
        ASKED,
        urllib3_pool(ASKED, assert_hostname=False),
        taken=False,
    ),
    Row(
        "urllib3",
        "assert_fingerprint",
        ASKED,
        ASKED,
        urllib3_manager(ASKED, assert_fingerprint=_fingerprint),
        taken=False,
    ),
    Row(
        "urllib3",
        "assert_fingerprint of a pool",
        ASKED,
        ASKED,
        urllib3_pool(ASKED, assert_fingerprint=_fingerprint),
        taken=False,
    ),
    Row(
        "urllib3", "assert_hostname that TLS verifies", ASKED, ASKED, urllib3_pool(ASKED, assert_hostname=ASKED.upper())
    ),
    Row(
        "urllib3",
        "assert_hostname and server_hostname",
        ASKED,
        OTHER,
        urllib3_pool(ASKED, assert_hostname=OTHER, server_hostname=OTHER),
    ),
    Row(
        "urllib3",
        "assert_hostname of a connection",
        ASKED,
        IP,
        urllib3_connection(IP, assert_hostname=ASKED),
        taken=False,
    ),
    Row(
        "urllib3",
        "assert_hostname=False of a connection",
        ASKED,
        ASKED,
        urllib3_connection(ASKED, assert_hostname=False),
        taken=False,
    ),
    Row(
        "urllib3",
        "assert_fingerprint of a connection",
        ASKED,
        ASKED,
        urllib3_connection(ASKED, assert_fingerprint=_fingerprint),
        taken=False,
    ),
    Row("urllib3", "assert_hostname, set while it connects", ASKED, IP, _of_a_class_of_its_own, taken=False),
    Row("urllib3", "server_hostname of a connection", ASKED, OTHER, urllib3_connection(ASKED, server_hostname=OTHER)),
    Row("urllib3", "a Host field over the TLS of another name", ASKED, OTHER, urllib3_manager(OTHER, host_field=ASKED)),
    Row("urllib3", "a Host field at an IP address", ASKED, IP, urllib3_manager(IP, host_field=ASKED)),
    Row(
        "urllib3",
        "a Host field behind an https proxy",
        ASKED,
        OTHER,
        urllib3_manager(OTHER, host_field=ASKED, proxied=True),
    ),
    Row(
        "urllib3",
        "server_hostname behind an https proxy",
        ASKED,
        OTHER,
        urllib3_manager(ASKED, server_hostname=OTHER, proxied=True),
    ),
    Row(
        "urllib3",
        "proxy_assert_hostname",
        ASKED,
        ASKED,
        urllib3_manager(ASKED, proxied=True, proxy_assert_hostname=OTHER),
        taken=False,
    ),
    Row(
        "urllib3",
        "proxy_assert_hostname=False",
        ASKED,
        ASKED,
        urllib3_manager(ASKED, proxied=True, proxy_assert_hostname=False),
        taken=False,
    ),
    Row(
        "urllib3",
        "proxy_assert_fingerprint",
        ASKED,
        ASKED,
        urllib3_manager(ASKED, proxied=True, proxy_assert_fingerprint=_fingerprint),
        taken=False,
    ),
    Row("urllib3", "faß.test", FASZ, FASZ, urllib3_manager("faß.test")),
    Row("urllib3", "bücher.test", BUECHER, BUECHER, urllib3_manager("bücher.test")),
    Row("urllib3", "capitals", ASKED, ASKED, urllib3_manager(ASKED.upper())),
    Row("urllib3", "a dot at the end", ASKED, ASKED, urllib3_manager(f"{ASKED}.")),
    Row("requests", "a Host field over the TLS of another name", ASKED, OTHER, by_requests(OTHER, host_field=ASKED)),
    Row("requests", "a Host field at an IP address", ASKED, IP, by_requests(IP, host_field=ASKED)),
    Row("requests", "a Host field at an IP address, by PinnedSession", ASKED, IP, _pinned_session),
    Row(
        "requests",
        "assert_hostname of an adapter",
        ASKED,
        IP,
        by_requests(IP, host_field=ASKED, adapter=_NameOfTheHostField),
        taken=False,
    ),
    Row("requests", "faß.test", FASZ, FASZ, by_requests("faß.test")),
    Row("requests", "bücher.test", BUECHER, BUECHER, by_requests("bücher.test")),
    Row("requests", "capitals", ASKED, ASKED, by_requests(ASKED.upper())),
    Row("requests", "a dot at the end", ASKED, ASKED, by_requests(f"{ASKED}.")),
]
if sys.version_info >= (3, 12):  # older http.client sends CONNECT only for ASCII names
    ROWS.append(Row("http.client", "faß.test behind CONNECT", FASZ, FASS, http_client(IP, tunnel="faß.test")))
