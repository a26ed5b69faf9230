"""A site's key files, and real servers that show them: what the tests of the middleware stand on."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trustme
import uvicorn
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from werkzeug.serving import make_server

from dynpin import Pin
from dynpin.middleware import Policy

from .pki import Pki, two_levels

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

HOST = "bank.test"
ENFORCE, REPORT_ONLY = "public-key-pins", "public-key-pins-report-only"
REPORTS = "https://reports.example.net/r/1"


class Site:
    """The key files of one site: the chain and key that are deployed, and the public half of a backup key."""

    def __init__(self, folder: Path, authority: trustme.CA, *names: str) -> None:
        self.folder, self.authority = folder, authority
        self.names = names or (HOST, "127.0.0.1")
        folder.mkdir(exist_ok=True)
        self.chain, self.key, self.backup = (folder / name for name in ("fullchain.pem", "key.pem", "backup.pub"))
        self.deploy(self.issue())
        self.back_up(self.issue())

    def issue(self, *names: str, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> trustme.LeafCert:
        return self.authority.issue_cert(*(names or self.names), key_type=key_type)

    def deploy(self, certificate: trustme.LeafCert) -> None:
        _write(self.chain, chain_pem(certificate))
        _write(self.key, certificate.private_key_pem.bytes())

    def back_up(self, certificate: trustme.LeafCert) -> None:
        self.spare = certificate
        key = load_pem_private_key(certificate.private_key_pem.bytes(), None).public_key()
        _write(self.backup, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    @property
    def pins(self) -> tuple[Pin, Pin]:
        """The pin of the deployed key and that of the backup, as the files stand."""
        return Pin.from_file(self.chain), Pin.from_file(self.backup)

    @property
    def options(self) -> dict[str, Any]:
        """The least that makes a policy."""
        return {"keys": self.chain, "backups": [self.backup], "max_age": 3600}

    def expected(self, rest: str = "max-age=3600") -> str:
        """The header of the files as they stand."""
        return "; ".join([*(f'pin-sha256="{pin}"' for pin in self.pins), rest])

    def both(self) -> dict[str, Any]:
        """For a middleware: a policy that enforces and, beside it, the next one on trial."""
        trial = Policy(keys=self.chain, backups=self.pins[::-1], report_uri=REPORTS, mode="report-only")
        return {"policy": Policy(**self.options), "report_only": trial}

    def assert_both_sent(self, response: httpx.Response) -> None:
        """Each of the two fields once. get_list would split a field at its commas, so this looks at the raw fields."""
        found = [
            (name.lower(), value) for name, value in response.headers.raw if name.lower().startswith(b"public-key")
        ]
        trial = self.expected(f'report-uri="{REPORTS}"')
        assert found == [(ENFORCE.encode(), self.expected().encode()), (REPORT_ONLY.encode(), trial.encode())]

    def assert_own_field_stands(self, client: httpx.Client, name: str) -> None:
        """The field with this name is the application's own, and the other field is still sent."""
        response = client.get("/own", params={"name": name})
        own = [value for field, value in response.headers.raw if field.lower() == name.lower().encode()]
        assert own == [b"max-age=0"]
        other = ({ENFORCE, REPORT_ONLY} - {name.lower()}).pop()
        assert response.headers[other].startswith(self.expected("").removesuffix("; "))


def _write(file: Path, content: bytes) -> None:
    """Later than before by the time of the file too, which ticks every few milliseconds alone before Linux 6.13."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_bytes(content)
    if file.stat().st_mtime_ns <= before:
        os.utime(file, ns=(before + 1, before + 1))


def chain_pem(certificate: trustme.LeafCert, *above: trustme.CA) -> bytes:
    return b"".join(blob.bytes() for blob in (*certificate.cert_chain_pems, *(each.cert_pem for each in above)))


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def site(tmp_path: Path, authority: trustme.CA) -> Site:
    return Site(tmp_path / "tls", authority)


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Site:
    """One site for the tests of a module that change none of its files."""
    return Site(tmp_path_factory.mktemp("site") / "tls", authority)


@contextmanager
def serving_asgi(app: Any, site: Site | None) -> Iterator[str]:
    """Serve an ASGI app by uvicorn with its default settings on loopback, over TLS where a site is given."""
    files: dict[str, Any] = {} if site is None else {"ssl_certfile": site.chain, "ssl_keyfile": site.key}
    config = uvicorn.Config(app, port=0, log_config=None, **files)
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        # The socket listens from the start, so that a request waits for the server, and nobody polls.
        listener.listen()
        yield f"{'http' if site is None else 'https'}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def serving_wsgi(app: WSGIApplication, site: Site | None) -> Iterator[str]:
    """Serve a WSGI app by a threaded server on loopback, over TLS where a site is given."""
    context = None
    if site is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(site.chain, site.key)
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{'http' if site is None else 'https'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def trust(authority: trustme.CA) -> ssl.SSLContext:
    """A context that trusts the authority and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


Connect = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def connect(trust: ssl.SSLContext) -> Generator[Connect]:
    """Serves an app and gives a client of it: ``connect(serving_asgi, app, site)``."""
    with ExitStack() as stack:

        def start(serving: Callable[..., Any], app: object, site: Site | None) -> httpx.Client:
            url = stack.enter_context(serving(app, site))
            return stack.enter_context(httpx.Client(base_url=url, verify=trust, trust_env=False, timeout=120))

        yield start


@pytest.fixture(scope="module")
def pki() -> Pki:
    """A CA and what it has issued, which many tests read."""
    return two_levels()
