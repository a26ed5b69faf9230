"""Real web servers on loopback, each started with an exported line in its configuration."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import trustme

from dynpin.lab.loopback import LoopbackServer
from tests.programs import end

HOST = "localhost"
# Generous, since a busy machine is not a fault of the server's.
_PATIENCE = 120.0
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def program(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


@dataclass(frozen=True)
class Site:
    """A CA, and a host's certificate of it, as files."""

    folder: Path
    roots: Path
    chain: Path
    key: Path
    both: Path

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.roots)


def make_site(folder: Path, *names: str) -> Site:
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    certificate = authority.issue_cert(*(names or (HOST,)))
    site = Site(folder, *(folder / name for name in ("roots.pem", "chain.pem", "key.pem", "both.pem")))
    authority.cert_pem.write_to_path(site.roots)
    certificate.private_key_pem.write_to_path(site.key)
    site.chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_and_cert_chain_pem.write_to_path(site.both)
    return site


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 for a server that cannot say which one the system gave it; nobody else is given it meanwhile.

    A socket that is bound and does not listen keeps it: the system chooses no such port for others, and lets a server
    have it that asks for this one and may share addresses (SO_REUSEADDR or SO_REUSEPORT), as servers do.
    """
    with socket.socket() as keeper:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            keeper.setsockopt(socket.SOL_SOCKET, option, 1)
        keeper.bind(("127.0.0.1", 0))
        yield int(keeper.getsockname()[1])


CONFIGURATIONS = {
    "nginx": """
        daemon off; master_process off; pid {folder}/pid; error_log stderr;
        events {{}}
        http {{
            access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
            uwsgi_temp_path {folder}; scgi_temp_path {folder};
            server {{
                listen 127.0.0.1:{port} ssl; ssl_certificate {chain}; ssl_certificate_key {key};
                {lines}
                location / {{ return 200 "ok"; }}
                location /missing {{ return 404; }}
            }}
        }}
    """,
    "haproxy": """
        defaults
            mode http
            timeout client 60s
            timeout connect 60s
            timeout server 60s
        frontend tls
            bind 127.0.0.1:{port} ssl crt {both}
            {lines}
            http-request return status 404 if {{ path /missing }}
            http-request return status 200 content-type text/plain string ok
    """,
    "caddy": """
        {{
            admin off
            auto_https off
        }}
        https://localhost:{port} {{
            tls {chain} {key}
            {lines}
            respond / ok 200
            error /missing 404
        }}
    """,
    "apache": """
        ServerName localhost
        ServerRoot {folder}
        PidFile {folder}/pid
        LoadModule mpm_event_module {modules}/mod_mpm_event.so
        LoadModule authz_core_module {modules}/mod_authz_core.so
        LoadModule ssl_module {modules}/mod_ssl.so
        LoadModule headers_module {modules}/mod_headers.so
        LoadModule alias_module {modules}/mod_alias.so
        ErrorLog {folder}/error.log
        User nobody
        Group nogroup
        DocumentRoot {folder}
        Listen 127.0.0.1:{port}
        <VirtualHost 127.0.0.1:{port}>
            SSLEngine on
            SSLCertificateFile {chain}
            SSLCertificateKeyFile {key}
            {lines}
            Redirect 302 /moved https://elsewhere.example/
            Redirect 404 /missing
        </VirtualHost>
    """,
}
MODULES = "/usr/lib/apache2/modules"


def commands(name: str, config: Path) -> tuple[list[str], list[str]]:
    """The program's own check of a configuration, and the command that serves it in the foreground."""
    binary = program({"apache": "apache2"}.get(name, name)) or name
    match name:
        case "nginx":
            base = [binary, "-c", str(config), "-p", str(config.parent), "-e", "stderr"]
            return [*base, "-t"], base
        case "haproxy":
            return [binary, "-c", "-f", str(config)], [binary, "-db", "-f", str(config)]
        case "caddy":
            tail = ["--config", str(config), "--adapter", "caddyfile"]
            return [binary, "validate", *tail], [binary, "run", *tail]
        case _:
            checker = program("apachectl") or binary
            return [checker, "-f", str(config), "-t"], [binary, "-f", str(config), "-D", "FOREGROUND"]


@contextmanager
def running(command: Sequence[str], port: int, folder: Path) -> Iterator[None]:
    """A server in the foreground, from when it answers on its port until the block ends."""
    home = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (
        (folder / "server.log").open("w+b") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=home) as server,
    ):
        try:
            _await_port(port, server, folder / "server.log")
            yield
        finally:
            end(server)


def _await_port(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    pause, end = threading.Event(), time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), _PATIENCE).close()
        except OSError:
            assert server.poll() is None, log.read_text()
            pause.wait(0.025)  # a foreign program tells nobody when it listens
        else:
            return
    raise AssertionError(log.read_text())


def fetch(site: Site, port: int, path: str, name: str) -> tuple[int, list[str]]:
    """The status, and every field of this name."""
    connection = http.client.HTTPSConnection(HOST, port, context=site.client(), timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers.get_all(name) or []
    finally:
        connection.close()


class _Quiet(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        return


@contextmanager
def tls_server(site: Site, address: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A plain https server of the standard library; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.both)
    with LoopbackServer(_Quiet, address=address, port=port, context=context) as server:
        yield server.server_port
