"""Programs that do not know dynpin: enforced by the environment, or by one call from inside."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynpin import PublicKeyPins
from dynpin.clientstore import PinStore
from dynpin.clientstore.enforcement.certified import hosts_named, proves
from dynpin.hosts import KnownPinnedHost
from dynpin.lab.network import TLSServer

from .programs import HTTPX, NOTING, OTHERS, URLLIB, Ground
from .world import HOST, World

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

REFUSED = f"{HOST} shows none of its pinned keys."


@pytest.fixture
def ground(world: World, tmp_path: Path) -> Ground:
    folder = tmp_path / "ground"
    folder.mkdir()
    world.attacker.headers = [("Public-Key-Pins", str(world.header).replace("max-age=3600", "max-age=0"))]
    return Ground(world, folder)


def pinned(ground: Ground) -> list[str]:
    with PinStore(ground.store) as store:
        return [known.host for known in store.hosts()]


def pin(ground: Ground) -> None:
    with PinStore(ground.store) as store:
        store.pin(HOST, ground.world.header.pins)


def unheard(world: World) -> bool:
    world.attacker.wait_idle()
    return world.attacker.connections > 0 and world.attacker.application_bytes == 0


@pytest.mark.parametrize("program", NOTING)
def test_libraries_on_top_of_http_client_note_and_enforce(ground: Ground, program: str) -> None:
    world = ground.world
    visit = ground.script(NOTING[program], world.site.url(HOST))
    assert (visit.stdout, visit.stderr) == ("200\n", "")
    assert pinned(ground) == [HOST]
    refused = ground.script(NOTING[program], world.attacker.url(HOST))
    assert refused.returncode != 0
    assert REFUSED in refused.stderr
    assert unheard(world)


@pytest.mark.parametrize("program", OTHERS)
def test_programs_with_their_own_http_code_are_enforced(ground: Ground, program: str) -> None:
    world = ground.world
    assert ground.script(OTHERS[program], world.site.url(HOST)).stdout == "200\n"
    assert pinned(ground) == []
    pin(ground)
    assert ground.script(OTHERS[program], world.site.url(HOST)).stdout == "200\n"
    refused = ground.script(OTHERS[program], world.attacker.url(HOST))
    assert refused.returncode != 0
    assert REFUSED in refused.stderr
    assert unheard(world)


@pytest.mark.parametrize("code", [URLLIB, HTTPX], ids=["urllib", "httpx"])
def test_an_audit_lets_through_tells_and_notes_nothing(ground: Ground, code: str) -> None:
    pin(ground)
    done = ground.script(code, ground.world.attacker.url(HOST), audit=True)
    assert done.stdout == "200\n"
    assert f"dynpin: audit: this would have been refused: {REFUSED}" in done.stderr
    assert pinned(ground) == [HOST]  # the attacker's header would have removed it


# -- programs with their own ways -------------------------------------------------------------------------------------

# The program verifies the name itself, or sends the request to a name that TLS has not verified.
NAMES = {
    "assert-hostname": """
import ssl, sys, urllib3
pool = urllib3.HTTPSConnectionPool(
    "127.0.0.1", int(sys.argv[1]), ssl_context=ssl.create_default_context(), assert_hostname="bank.test", retries=False
)
print(pool.request("GET", "/").status)
""",
    "host-field": """
import sys, urllib.request
request = urllib.request.Request(f"https://other.test:{sys.argv[1]}/", headers={"Host": "bank.test"})
print(urllib.request.urlopen(request).status)
""",
}


@pytest.mark.parametrize("way", NAMES)
def test_the_name_that_a_program_means_counts(ground: Ground, way: str) -> None:
    world = ground.world
    world.attacker.show(world.rogue.issue_cert(HOST, "other.test"))
    assert ground.script(NAMES[way], str(world.attacker.port)).stdout == "200\n"
    assert pinned(ground) == []
    pin(ground)
    heard = world.attacker.application_bytes
    refused = ground.script(NAMES[way], str(world.attacker.port))
    assert refused.returncode != 0
    assert f"{HOST} " in refused.stderr
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == heard


@pytest.mark.parametrize("name", ["*.bank.test", "*.test", HOST])
def test_a_name_with_a_wildcard_is_one_that_a_program_may_take_for_a_pinned_host(ground: Ground, name: str) -> None:
    world = ground.world
    world.attacker.show(world.rogue.issue_cert(name, common_name="127.0.0.1"))
    with PinStore(ground.store) as store:
        store.pin("bank.test", world.header.pins)
        store.pin("a.bank.test", world.header.pins)
    look = """
import socket, ssl, sys
context = ssl.create_default_context()
context.check_hostname = False
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as raw:
    context.wrap_socket(raw, server_hostname="127.0.0.1").sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
"""
    assert "shows none of its pinned keys." in ground.script(look, str(world.attacker.port)).stderr
    assert unheard(world)


@pytest.mark.parametrize(
    ("name", "proved", "taken_for"),
    [
        ("bank.test", {"bank.test"}, {"bank.test"}),
        ("*.bank.test", {"a.bank.test"}, {"a.bank.test", "any.bank.test"}),
        ("*.test", set[str](), {"bank.test", "any.test"}),
        ("b*k.test", set[str](), {"bank.test", "banyk.test"}),
        ("*.*.test", set[str](), {"a.bank.test", "a.*.test", "any.any.test"}),
        ("a.bank.test ", set[str](), set[str]()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_hosts_that_a_name_in_a_certificate_proves_or_may_match(
    name: str, proved: set[str], taken_for: set[str]
) -> None:
    hosts = ["bank.test", "a.bank.test", "b.a.bank.test", "a.*.test"]
    known = [KnownPinnedHost(host, (), False, None, 0, None) for host in hosts]
    assert {host for host in hosts if proves(name, host)} == proved
    assert set(hosts_named([name], lambda: known)) == taken_for


def test_a_connection_past_the_classes_of_its_context_is_refused(ground: Ground) -> None:
    pin(ground)
    past = """
import socket, ssl, sys, urllib.parse
class Own(socket.socket):
    pass
raw = socket.create_connection(("127.0.0.1", urllib.parse.urlsplit(sys.argv[1]).port))
own = Own(fileno=raw.detach())
ssl.create_default_context()._wrap_socket(own, False, "bank.test").do_handshake()
"""
    assert (
        "UnenforceableContext: __main__.Own ignores the classes"
        in ground.script(past, ground.world.attacker.url(HOST)).stderr
    )


SERVER = """
import http.server, ssl, sys, threading, urllib.request
context = ssl.SSLContext(getattr(ssl, sys.argv[1]))
context.load_cert_chain(sys.argv[2])
def state():
    return context.options, context.sslsocket_class, context.sslobject_class
before = state()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(type(self.connection).__qualname__.encode())
    def log_message(self, *args):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f"https://bank.test:{server.server_port}/").read().decode(), state() == before)
server.shutdown()
"""
ASYNCIO_SERVER = """
import asyncio, ssl, sys, urllib.request
context = ssl.SSLContext(getattr(ssl, sys.argv[1]))
context.load_cert_chain(sys.argv[2])
async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + type(writer.get_extra_info("ssl_object")).__qualname__.encode())
    writer.close()
def visit(port):
    return urllib.request.urlopen(f"https://bank.test:{port}/").read().decode()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    print(await asyncio.to_thread(visit, server.sockets[0].getsockname()[1]), context.sslobject_class is ssl.SSLObject)
    server.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("protocol", ["PROTOCOL_TLS_SERVER", "PROTOCOL_TLS"])
@pytest.mark.parametrize(("code", "connection"), [(SERVER, "SSLSocket"), (ASYNCIO_SERVER, "SSLObject")])
def test_a_server_is_as_before(ground: Ground, protocol: str, code: str, connection: str) -> None:
    key = ground.folder / "server.pem"
    ground.world.certificate.private_key_and_cert_chain_pem.write_to_path(key)
    assert ground.script(code, protocol, str(key)).stdout == f"{connection} True\n"


# -- pip: a program of many files, with its own libraries -------------------------------------------------------------

WHEEL = "tiny-1.0-py3-none-any.whl"


def index(headers: list[tuple[str, str]]) -> WSGIApplication:
    """A package index with one wheel."""
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        is_wheel = environ["PATH_INFO"].endswith(WHEEL)
        kind = "application/zip" if is_wheel else "text/html"
        start_response("200 OK", [("Content-Type", kind), *headers])
        return [wheel.getvalue() if is_wheel else f'<a href="/{WHEEL}">{WHEEL}</a>'.encode()]

    return app


def test_pip_downloads_notes_and_refuses(ground: Ground) -> None:
    world = ground.world
    world.site.app = index(list(world.site.headers))
    world.attacker.app = index(list(world.attacker.headers))
    options = ["download", "--isolated", "--no-deps", "--no-cache-dir", "--retries=0", "--disable-pip-version-check"]
    pip = [str(Path(sys.executable).with_name("pip")), *options, "--dest", str(ground.folder / "to"), "tiny"]
    run = [sys.executable, "-m", "dynpin", "run", "--store", str(ground.store)]

    def download(server: TLSServer, *more: str) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(ground.folder / "to", ignore_errors=True)
        return ground.plainly([*run, *more, "--", *pip, "--index-url", server.url(HOST, "/simple")])

    assert download(world.site).returncode == 0
    assert (ground.folder / "to" / WHEEL).exists()
    assert pinned(ground) == [HOST]
    refused = download(world.attacker)
    assert refused.returncode == 1
    assert REFUSED in refused.stdout + refused.stderr
    assert unheard(world)
    audited = download(world.attacker, "--audit")
    assert audited.returncode == 0
    assert REFUSED in audited.stderr
    assert pinned(ground) == [HOST]


# -- ways to start ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before",
    ["", "import http.client, ssl; context = ssl.create_default_context(); from urllib.request import urlopen"],
    ids=["first", "late"],
)
def test_one_call_from_inside_does_the_same(ground: Ground, before: str) -> None:
    code = f"""
{before}
from dynpin.clientstore import PinStore, inject
inject(PinStore({str(ground.store)!r}), reporter="off")
inject(PinStore({str(ground.folder / "second.sqlite")!r}), reporter="off")
import sys, ssl, urllib.request
urlopen = globals().get("urlopen", urllib.request.urlopen)
context = globals().get("context")
for url in sys.argv[1:]:
    print(urlopen(url, context=context).status, flush=True)
"""
    world, file = ground.world, ground.folder / "inside.py"
    file.write_text(code)
    done = ground.plainly([sys.executable, str(file), world.site.url(HOST), world.attacker.url(HOST)])
    assert done.stdout == "200\n"
    assert REFUSED in done.stderr
    assert pinned(ground) == [HOST]
    with PinStore(ground.folder / "second.sqlite") as second:
        assert [known.host for known in second.hosts()] == [HOST]
    assert unheard(world)


@pytest.fixture(scope="module")
def foreign_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which nothing is installed."""
    folder = tmp_path_factory.mktemp("foreign")
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


def test_an_environment_without_dynpin_stays_as_it_is(ground: Ground, foreign_python: Path) -> None:
    world, ground.python = ground.world, foreign_python
    look = """
import sys, importlib.metadata, importlib.util
print(list(importlib.metadata.distributions()), *map(importlib.util.find_spec, ["rich", "cryptography"]))
print([folder for folder in sys.path if "bootstrap" in folder or "dynpin" in folder])
"""
    assert ground.script(look).stdout == "[] None None\n[]\n"
    assert ground.script(URLLIB, world.site.url(HOST)).stdout == "200\n"
    assert pinned(ground) == [HOST]
    assert REFUSED in ground.script(URLLIB, world.attacker.url(HOST)).stderr
    assert unheard(world)


@pytest.mark.parametrize("name", ["DYNPIN_RUN", "DYNPIN_STORE", "DYNPIN_RUN_PATH"])
def test_a_bootstrap_without_all_its_variables_ends_the_program(ground: Ground, name: str) -> None:
    done = ground.start("-c", "print('started')", more={name: ""})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"dynpin: {sys.executable} was not started, ")
    assert done.stderr.count("\n") == 1


def test_a_bootstrap_that_cannot_load_dynpin_ends_the_program(ground: Ground, foreign_python: Path) -> None:
    ground.python = foreign_python
    done = ground.start("-c", "print('started')", more={"DYNPIN_RUN_PATH": str(ground.folder)})
    assert (done.returncode, done.stdout) == (2, "")
    assert "ModuleNotFoundError: No module named 'dynpin'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_store_that_cannot_be_opened_lets_nothing_through(ground: Ground) -> None:
    ground.store.write_bytes(b"no database" * 100)
    assert "StoreError" in ground.start("-c", URLLIB, ground.world.site.url(HOST)).stderr
    assert ground.world.site.connections <= 1
    assert ground.world.site.application_bytes == 0


@pytest.mark.parametrize("mode", ["enforce", "audit", "report-only"])
def test_a_violation_is_reported(ground: Ground, mode: str) -> None:
    visit = f"""
try:
    {URLLIB}
except OSError:
    pass
from dynpin.clientstore.injection.rules import rules
rules()[0].enforcement.reporter.wait(60)
"""
    with TLSServer(ground.world.honest.issue_cert("report.test")) as collector:
        pins, uri = ground.world.header.pins, collector.url("report.test")
        if mode == "report-only":
            policy = str(PublicKeyPins(pins, report_uri=uri, report_only=True))
            ground.world.attacker.headers = [("Public-Key-Pins-Report-Only", policy)]
        else:
            with PinStore(ground.store) as store:
                store.pin(HOST, pins, report_uri=uri)
        ground.start("-c", visit, ground.world.attacker.url(HOST), audit=mode == "audit", reports=True)
        assert collector.received.startswith(b"POST /")
        assert f'"hostname": "{HOST}"'.encode() in collector.received


def test_little_is_imported_before_the_first_connection(ground: Ground) -> None:
    heavy = "{'cryptography', 'http.client', 'idna', 'json', 'sqlite3', 'dynpin.clientstore.store'}"
    assert ground.start("-c", f"import sys; print({heavy} & set(sys.modules))").stdout == "set()\n"


def test_a_zipapp_and_a_module(ground: Ground) -> None:
    world = ground.world
    with zipfile.ZipFile(ground.folder / "app.pyz", "w") as archive:
        archive.writestr("__main__.py", URLLIB)
    (ground.folder / "visit.py").write_text(URLLIB)
    for program in (["app.pyz"], ["-m", "visit"]):
        assert ground.start(*program, world.site.url(HOST)).stdout == "200\n"
        assert REFUSED in ground.start(*program, world.attacker.url(HOST)).stderr
    assert unheard(world)


def test_the_probe_of_an_injected_program_is_not_hardened_itself(tmp_path: Path) -> None:
    """In a fresh process, in which no probe has passed before: the first connection of a program is enforced."""
    script = (
        "import ssl, sys\n"
        "from dynpin.clientstore import PinStore, inject\n"
        "inject(PinStore(sys.argv[1]))\n"
        "made = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname='bank.test')\n"
        "from dynpin.clientstore.enforcement import ObjectGuard\n"
        "assert isinstance(made, ObjectGuard)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "pins.sqlite")], check=True, timeout=240)
