"""The examples on real servers, behind a proxy that ends TLS: the header on every kind of response."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import itertools
import ssl
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dynpin import Pin, PublicKeyPins
from dynpin.lab.loopback import LoopbackServer
from tests.deploy.servers import HOST, Site, make_site, reserved_port, running
from tests.deploy.test_rotation import NEW

EXAMPLES = Path(__file__).parents[2] / "examples"
WAITRESS = ["waitress", "--listen=127.0.0.1:{port}", "--trusted-proxy=127.0.0.1"]
WAITRESS.append("--trusted-proxy-headers=x-forwarded-proto")
SERVERS = {
    "uvicorn": ["uvicorn", "--port={port}"],
    "hypercorn": ["hypercorn", "--bind=127.0.0.1:{port}"],
    "granian-asgi": ["granian", "--interface=asgi", "--port={port}"],
    "granian-wsgi": ["granian", "--interface=wsgi", "--port={port}"],
    "gunicorn": ["gunicorn", "--bind=127.0.0.1:{port}"],
    "waitress": WAITRESS,
}
# What tells about the proxy where the server has no option for it: around the pins, as docs/how-to/frameworks.md says.
AROUND = {
    "hypercorn": "from hypercorn.middleware import ProxyFixMiddleware\napp = ProxyFixMiddleware(app, trusted_hops=1)\n",
    "granian-asgi": "from granian.utils.proxies import wrap_asgi_with_proxy_headers as wrap\napp = wrap(app)\n",
    "granian-wsgi": "from granian.utils.proxies import wrap_wsgi_with_proxy_headers as wrap\napp = wrap(app)\n",
}
PAIRS = [
    *itertools.product(("starlette", "fastapi", "litestar", "quart"), ("uvicorn", "hypercorn", "granian-asgi")),
    *itertools.product(("flask", "django", "falcon", "bottle"), ("gunicorn", "waitress", "granian-wsgi")),
]
REQUESTS = {
    "page": ("GET", "/", 200),
    "HEAD": ("HEAD", "/", 200),
    "missing": ("GET", "/none", 404),
    "error": ("GET", "/boom", 500),
    "redirect": ("GET", "/moved", 302),
    "stream": ("GET", "/stream", 200),
    "static": ("GET", "/static/file.txt", 200),
}


@contextlib.contextmanager
def proxy(site: Site, upstream: int) -> Iterator[int]:
    """A proxy that ends TLS and tells the server behind it so; its port."""

    class Forward(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", upstream, timeout=120)
            fields = {"Host": HOST, "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
            connection.request(self.command, self.path, headers=fields)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower().startswith("public-key-pins"):
                    self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            return

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.both)
    with LoopbackServer(Forward, context=context) as server:
        yield server.server_port


@pytest.fixture(scope="module", params=PAIRS, ids=" on ".join)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, int, int]]:
    """One example on its server: the site, the proxy's port and the server's own."""
    framework, server = request.param
    command = SERVERS[server]
    for module in (framework, command[0]):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install --group frameworks")
    folder = tmp_path_factory.mktemp(framework)
    site = make_site(folder, HOST)
    (folder / "dynpin.toml").write_text(
        f'hosts = ["{HOST}"]\nkeys = ["chain.pem"]\nbackups = [{{ pin = "{NEW}" }}]\n[policy]\nmax_age = "30 days"\n'
    )
    (folder / "served.py").write_text(f"from {framework}_app import app\n{AROUND.get(server, '')}")
    with reserved_port() as port:
        options = [each.format(port=port) for each in command]
        start = ["env", f"PYTHONPATH={EXAMPLES}:{folder}", sys.executable, "-m", *options, "served:app"]
        with contextlib.chdir(folder), running(start, port, folder), proxy(site, port) as outside:
            yield site, outside, port


@pytest.mark.parametrize("kind", REQUESTS)
def test_every_response_over_https_carries_the_header_once(kind: str, served: tuple[Site, int, int]) -> None:
    site, outside, _ = served
    method, path, status = REQUESTS[kind]
    connection = http.client.HTTPSConnection(HOST, outside, context=site.client(), timeout=120)
    connection.request(method, path)
    response = connection.getresponse()
    response.read()
    connection.close()
    header = PublicKeyPins((Pin.from_file(site.chain), NEW), 30 * 86_400)
    assert (response.status, response.headers.get_all("Public-Key-Pins")) == (status, [str(header)])


def test_plain_http_carries_none(served: tuple[Site, int, int]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served[2], timeout=120)
    connection.request("GET", "/", headers={"Host": HOST})
    response = connection.getresponse()
    response.read()
    connection.close()
    assert (response.status, response.headers.get_all("Public-Key-Pins")) == (200, None)
