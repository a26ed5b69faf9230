"""An operator follows the documented rotation and forgets one step of it: a tool stops him before a client is lost.

The site is real: a TLS server that sends what its Policy makes of ``dynpin.toml``. The clients are real pin stores.
Only the clock is the test's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dynpin.clientstore import PinStore
from dynpin.errors import PolicyError
from dynpin.lab.network import TLSServer, loopback_names
from dynpin.middleware import Policy
from dynpin.pins import certificates, chain_pins
from tests.deploy.commands import dynpin

HOST = "bank.test"
PASSPHRASE = "correct horse battery staple"
START = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
MAX_AGE = 3 * 86_400
SECOND = 1.0

# Whether the new key was pinned as the backup all along, or nobody has heard of it.
Kind = Literal["to the backup", "to a fresh key"]


class Authority:
    """A small CA of one's own, in files."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a CA of one's own")])
        self.certificate = (
            self._builder(self.name, self.key.public_key())
            .add_extension(x509.BasicConstraints(True, None), True)
            .sign(self.key, hashes.SHA256())
        )
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.pem)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        start = datetime(2020, 1, 1, tzinfo=UTC)
        serial = x509.random_serial_number()
        return x509.CertificateBuilder(self.name, subject, key, serial, start, start.replace(year=2090))

    def sign(self, csr: Path, to: Path) -> None:
        request = x509.load_pem_x509_csr(csr.read_bytes())
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        signed = self._builder(request.subject, key).add_extension(names, False).sign(self.key, hashes.SHA256())
        to.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


@dataclass
class Stop:
    """A tool that does not go on: at which step, with which exit code, saying what."""

    step: str
    code: int
    said: str


@dataclass
class Site:
    """The operator's folder, his server and all clients that ever came by."""

    folder: Path
    kind: Kind
    authority: Authority
    server: TLSServer
    now: float = START
    shown: Path = Path("tls/fullchain.pem")
    policy: Policy | None = None
    clients: list[PinStore] = field(default_factory=list[PinStore])

    # -- the world -----------------------------------------------------------------------------------------------------

    def pass_time(self, until: float) -> None:
        """Time goes by; a new client comes each day and stays away then. Nobody who came before may be refused."""
        while True:
            self.meet_clients()
            if self.now >= until:
                return
            self.now = min(until, self.now + 86_400)

    def meet_clients(self) -> None:
        if not self.shown.exists() or self.policy is None:
            return
        self.policy.refresh()
        header = self.policy.header
        self.server.headers = [] if header is None else [(header.name, str(header))]
        pins = chain_pins([*certificates(self.shown.read_bytes()), *certificates(self.authority.pem)])
        for client in self.clients:
            validation = client.validate(HOST, pins)
            assert validation.ok, f"a client is locked out: {validation.reason}"
        newcomer = PinStore(self.folder / f"client-{len(self.clients)}", clock=lambda: self.now)
        self.clients.append(newcomer)
        if header is not None:
            newcomer.note(HOST, str(header), pins)

    def show(self, chain: Path, key: Path) -> None:
        """Have the server show this chain from now on."""
        self.shown = chain
        loaded = serialization.load_pem_private_key(key.read_bytes(), PASSPHRASE.encode())
        private = loaded.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.server.show(trustme.LeafCert(private, chain.read_bytes(), []))

    # -- what the operator does ----------------------------------------------------------------------------------------

    def tool(self, *arguments: str) -> str:
        """A command, which he obeys: one that does not say 0 ends the rotation."""
        now = [] if arguments[0] == "keys" else ["--now", datetime.fromtimestamp(self.now, UTC).isoformat()]
        result = dynpin(*arguments, *now)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        if result.exit_code:
            raise Stopped(result.exit_code, result.output)
        return result.stdout

    def make_key(self, name: str) -> None:
        self.tool("keys", "new", HOST, "--out", "tls", "--name", name, "--passphrase-file", "passphrase")

    def describe(self, keys: str, *backups: str) -> None:
        named = ", ".join(f'"tls/{each}"' for each in backups)
        Path("dynpin.toml").write_text(
            f'hosts = ["{HOST}"]\nkeys = ["tls/{keys}"]\nbackups = [{named}]\n\n[policy]\nmax_age = "3 days"\n'
        )
        try:
            if self.policy is None:
                self.policy = Policy.from_inventory("dynpin.toml")
        except PolicyError as error:
            raise Stopped(1, f"the server does not start: {error}") from None

    def begin(self) -> None:
        """The site as it is before it pins: a key, a certificate, a server."""
        Path("passphrase").write_text(PASSPHRASE)
        self.make_key("site")
        self.authority.sign(Path("tls/site.csr.pem"), Path("tls/fullchain.pem"))
        self.show(Path("tls/fullchain.pem"), Path("tls/site.key.pem"))

    @property
    def new(self) -> str:
        return "backup" if self.kind == "to the backup" else "next"

    @property
    def reserve(self) -> str:
        return "next" if self.kind == "to the backup" else "backup"

    def plan(self) -> None:
        new, reserve = f"tls/{self.new}.pub.pem", f"tls/{self.reserve}.pub.pem"
        self.tool("rotate", "plan", "--to", new, "--backup", reserve, "--start")

    def done(self) -> None:
        url = self.server.url(HOST)
        self.tool("rotate", "next", "--done", "--verify", url, "--ca", str(self.authority.file))

    def wait(self) -> None:
        """Wait for the date that the tool names; too early is what he expects."""
        at = datetime.fromtimestamp(self.now, UTC).isoformat()
        result = dynpin("rotate", "next", "--json", "--now", at)
        step = json.loads(result.stdout)
        if result.exit_code and (not step["early"] or step["disagreements"]):
            raise Stopped(result.exit_code, result.output)
        if step["next"] is not None:
            self.pass_time(datetime.fromisoformat(step["next"]["at"]).timestamp())

    def ask_guard(self) -> None:
        self.tool("guard", "tls/new.pem", "--inventory", "dynpin.toml", "--history", "dynpin-history.json")

    def steps(self) -> dict[str, Callable[[], object]]:
        """The rotation as docs/how-to/rotate.md has it."""
        return {
            "make a backup": lambda: self.make_key("backup"),
            "describe": lambda: self.describe("fullchain.pem", "backup.pub.pem"),
            "record": lambda: self.tool("rotate", "record"),
            "make the next key": lambda: self.make_key("next"),
            "plan": self.plan,
            "publish": lambda: self.describe("fullchain.pem", "backup.pub.pem", "next.pub.pem"),
            "say that it is published": self.done,
            "wait": self.wait,
            "sign": lambda: self.authority.sign(Path(f"tls/{self.new}.csr.pem"), Path("tls/new.pem")),
            "ask the guard": self.ask_guard,
            "name the new chain": lambda: self.describe("new.pem", f"{self.reserve}.pub.pem", "fullchain.pem"),
            "deploy": lambda: self.show(Path("tls/new.pem"), Path(f"tls/{self.new}.key.pem")),
            "say that it is deployed": self.done,
            "wait for the old pin": self.wait,
            "retire": lambda: self.describe("new.pem", f"{self.reserve}.pub.pem"),
            "say that it is retired": self.done,
        }

    def rotate(self, without: str | None = None) -> Stop | None:
        """All steps but one, until a tool stops him; then, and a week after, life goes on."""
        self.begin()
        stop = None
        for name, step in self.steps().items():
            if name == without:
                continue
            try:
                step()
            except Stopped as stopped:
                stop = Stop(name, stopped.code, stopped.said)
                break
            self.pass_time(self.now + SECOND)
        if stop is None:
            try:
                self.tool("rotate", "status")
            except Stopped as stopped:
                stop = Stop("look at the status", stopped.code, stopped.said)
        self.pass_time(self.now + 3 * MAX_AGE)
        return stop


class Stopped(Exception):
    """A tool has not said 0."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(code, said)
        self.code = code
        self.said = said


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Site]:
    monkeypatch.chdir(tmp_path)
    kind: Kind = request.param
    with ExitStack() as stack:
        authority = Authority(tmp_path)
        server = stack.enter_context(TLSServer(trustme.CA().issue_cert(HOST)))
        stack.enter_context(loopback_names({HOST: server.port}))
        made = Site(tmp_path, kind, authority, server)
        yield made
        for client in made.clients:
            client.close()


@pytest.mark.parametrize("site", ["to the backup", "to a fresh key"], indirect=True)
def test_the_rotation_as_it_is_written_down_stops_nowhere_and_locks_nobody_out(site: Site) -> None:
    stop = site.rotate()
    assert stop is None, stop
    assert site.shown == Path("tls/new.pem")
    assert len(site.clients) > 12


# Each step that is left out: who stops the operator, at which step, with which exit code and words. None: the rotation
# goes well without it, for the one kind or for both.
FORGOTTEN: dict[str, tuple[str, int, str] | None] = {
    "make a backup": ("describe", 1, "backup.pub.pem cannot be read"),
    "describe": ("record", 2, "nothing to record: go to the folder of dynpin.toml"),
    "record": ("plan", 2, "dynpin rotate record"),
    "make the next key": ("plan", 2, "next.pub.pem"),
    "plan": ("say that it is published", 1, "no rotation of bank.test is under way"),
    "publish": ("say that it is published", 1, "the step publish is not done"),
    "say that it is published": ("wait", 1, "dynpin rotate next --done"),
    "wait": ("ask the guard", 1, "Or wait: from 2026-12-04"),
    "sign": ("ask the guard", 2, "new.pem"),
    "ask the guard": None,
    "name the new chain": ("say that it is deployed", 1, "dynpin.toml: the new key"),
    "deploy": ("say that it is deployed", 1, "Deploy the new chain there"),
    "say that it is deployed": ("wait for the old pin", 1, "dynpin rotate next --done"),
    "wait for the old pin": ("say that it is retired", 1, "too early to retire"),
    "retire": ("say that it is retired", 1, "still names"),
    "say that it is retired": ("look at the status", 1, "dynpin rotate next --done"),
}


@pytest.mark.parametrize("site", ["to the backup", "to a fresh key"], indirect=True)
@pytest.mark.parametrize("forgotten", FORGOTTEN)
def test_a_forgotten_step_is_told_before_a_client_is_locked_out(site: Site, forgotten: str) -> None:
    assert list(FORGOTTEN) == list(site.steps())
    expected = FORGOTTEN[forgotten]
    if forgotten == "wait" and site.kind == "to the backup":
        expected = None  # every client has known the backup all along
    stop = site.rotate(without=forgotten)  # it fails by itself where a client is refused
    if expected is None:
        assert stop is None
        return
    step, code, said = expected
    assert stop is not None
    assert (stop.step, stop.code) == (step, code), stop
    assert said in stop.said


@pytest.mark.parametrize("site", ["to a fresh key"], indirect=True)
def test_an_operator_who_does_not_obey_locks_clients_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients of these tests can be lost: without the wait, and past the guard."""
    monkeypatch.setattr(Site, "ask_guard", lambda _: None)
    with pytest.raises(AssertionError, match="a client is locked out"):
        site.rotate(without="wait")
