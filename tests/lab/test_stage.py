"""The stage: the servers decide an outcome, whatever the agents report."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from http.client import HTTPSConnection
from typing import TYPE_CHECKING

import pytest

from dynpin import PolicyError, PublicKeyPins
from dynpin.deploy.rotation import Deployed, Published
from dynpin.lab.agents import AGENTS, Agent, Machine, Visit
from dynpin.lab.agents.library import DynpinAgent
from dynpin.lab.certificates import Authority, KeyPair
from dynpin.lab.network import TLSServer, loopback_names
from dynpin.lab.stage import Stage, days, hours, set_stage

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

HOST = "bank.test"


@pytest.fixture
def stage() -> Iterator[Stage]:
    with set_stage("a test", AGENTS["dynpin"]) as stage:
        yield stage


class Boaster(DynpinAgent):
    """A user agent that sends the request, and reports afterwards that it has refused."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.boasts = False

    def visit(self, host: str, *, secret: str, path: str = "/") -> Visit:
        visit = super().visit(host, secret=secret, path=path)
        return Visit(host=host, refusal="I have refused") if self.boasts else visit


# -- outcomes ---------------------------------------------------------------------------------------------------------


def test_each_outcome(stage: Stage) -> None:
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    bank = stage.site(HOST, honest, backups=1, max_age=days(2))
    alice, bob = stage.client("Alice"), stage.client("Bob", pins=False)
    found = [alice.visits(bank), bob.visits(bank)]
    mallory = stage.attacker("Mallory", takes=bank, certificate_of=careless)
    found += [alice.visits(bank), bob.visits(bank)]
    mallory.leaves()
    bank.deploys(bank.makes_key())
    found += [alice.visits(bank), alice.visits("nobody.test")]
    bank.deploys(bank.certifies(bank.key, expired=True))
    found += [bob.visits(bank)]
    told = [(event.actor, event.target, event.outcome, event.bytes_read > 0) for event in found]
    assert told == [
        ("Alice", HOST, "served", True),
        ("Bob", HOST, "served", True),
        ("Alice", "Mallory", "protected", False),
        ("Bob", "Mallory", "fooled", True),
        ("Alice", HOST, "locked-out", False),
        ("Alice", None, "failed", False),
        ("Bob", HOST, "failed", False),
    ]
    assert b"the-token-of-bob" in mallory.server.received
    assert b"the-token-of-alice" not in mallory.server.received
    assert "expired" in found[-1].reason


def test_an_agent_that_reports_a_refusal_but_has_sent_is_fooled() -> None:
    with set_stage("a test", AGENTS["dynpin"]) as stage:
        made: list[Boaster] = []

        def install(machine: Machine) -> Boaster:
            made.append(Boaster(machine))
            return made[-1]

        stage.agent = Agent("boaster", "Boaster", (), install)
        honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
        bank = stage.site(HOST, honest)
        alice = stage.client("Alice")
        stage.attacker("Mallory", takes=bank, certificate_of=careless)
        made[0].boasts = True
        event = alice.visits(bank)
        assert (event.reason, event.outcome) == ("I have refused", "fooled")
        stage.expect(event, "protected")
        assert not holds(stage)


def test_a_client_of_a_server_under_an_attackers_control_is_fooled(stage: Stage) -> None:
    bank = stage.site(HOST, stage.authority("Honest CA"), backups=1, max_age=days(2))
    alice = stage.client("Alice")
    stage.appears("Mallory", "attacker", "")
    bank.falls_to("Mallory")
    event = alice.visits(bank)
    assert (event.outcome, event.target, event.noting) == ("fooled", HOST, "noted")
    assert "Mallory reads" in event.text
    bank.deploys(bank.makes_key())
    assert alice.visits(bank).outcome == "protected"
    bank.is_freed()
    assert alice.visits(bank).outcome == "locked-out"


def test_an_attacker_may_be_in_the_network_of_one_alone(stage: Stage) -> None:
    bank = stage.site(HOST, stage.authority("Honest CA"))
    alice, bob = stage.client("Alice"), stage.client("Bob")
    mallory = stage.attacker("Mallory", takes=bank, only=[bob])
    assert (alice.visits(bank).outcome, bob.visits(bank).outcome) == ("served", "fooled")
    mallory.leaves()
    assert (alice.visits(bank).outcome, bob.visits(bank).outcome) == ("served", "served")


def test_after_an_attacker_leaves_the_network_leads_to_the_old_server(stage: Stage) -> None:
    honest = stage.authority("Honest CA")
    first, second = stage.site(HOST, honest), stage.site(HOST, honest, name="second node")
    alice = stage.client("Alice")
    assert alice.visits(HOST).target == HOST
    stage.leads(HOST, second)
    mallory = stage.attacker("Mallory", takes=first)
    assert alice.visits(HOST).target == "Mallory"
    mallory.leaves()
    assert alice.visits(HOST).target == "second node"


# -- the site and its tools -------------------------------------------------------------------------------------------


def test_the_header_is_the_policys_own_and_the_history_has_all_of_it(stage: Stage) -> None:
    bank = stage.site(HOST, stage.authority("Honest CA"), backups=1, max_age=days(2), include_subdomains=True)
    old, backup = bank.keys
    alice = stage.client("Alice")
    noted = alice.visits(bank)
    assert (noted.noting, noted.pinned) == ("noted", (old.pin, backup.pin))
    (held,) = noted.held["Alice"]
    assert (held.pins, held.include_subdomains, held.static) == ((old.pin, backup.pin), True, False)
    assert held.until == days(2).total_seconds()
    stage.later(hours(1))
    bank.rotates()
    assert bank.key is backup
    assert alice.visits(bank).pinned == (backup.pin, bank.backups[0].pin)
    events = bank.history.events
    assert [type(event) for event in events] == [Deployed, Published, Deployed, Published]
    assert bank.history.header == PublicKeyPins.parse(bank.header or "")
    assert bank.history.chain[0] == backup.pin
    with pytest.raises(PolicyError, match="60 days"):
        bank.policy(max_age=days(61))


@pytest.mark.parametrize(
    ("value", "published"),
    [(None, None), ("max-age=eternal", None), ("max-age=0", PublicKeyPins((), 0))],
)
def test_a_header_without_the_middleware_is_in_the_history_if_it_can_be_parsed(
    value: str | None, published: PublicKeyPins | None, stage: Stage
) -> None:
    bank = stage.site(HOST, stage.authority("Honest CA"), backups=1, max_age=days(2))
    bank.sends(value)
    assert bank.history.header == published
    assert bank.header == value


def test_a_lost_key_cannot_be_deployed(stage: Stage) -> None:
    bank = stage.site(HOST, stage.authority("Honest CA"), backups=1)
    backup = bank.backups[0]
    bank.loses(backup)
    assert bank.backups == []
    with pytest.raises(ValueError, match="key 2 is lost"):
        bank.deploys(backup)


def holds(stage: Stage) -> bool:
    """Whether all assertions so far hold."""
    return stage.timeline.ok


# -- assertions -------------------------------------------------------------------------------------------------------


def test_expectations_may_differ_by_agent_and_the_last_decides_unless_one_is_marked(stage: Stage) -> None:
    bank = stage.site(HOST, stage.authority("Honest CA"))
    alice = stage.client("Alice")
    first, second, third = (alice.visits(bank) for _ in range(3))
    stage.expect(first, "fooled", dynpin="served", chromium="failed")
    assert stage.timeline.decisive is first
    stage.expect(second, "served", decisive=True, firefox="failed")
    stage.expect(third, "served")
    assert stage.timeline.decisive is second
    assert holds(stage)
    stage.expect(third, "protected")
    assert not holds(stage)
    assert "but was served" in stage.timeline.remarks[-1].text


def test_an_attempt_that_is_not_refused_is_noticed(stage: Stage) -> None:
    assert stage.refuses("zero", lambda: 1 // 0, ZeroDivisionError) == "integer division or modulo by zero"
    assert holds(stage)
    assert stage.refuses("one", lambda: 1 // 1, ZeroDivisionError) == ""
    assert not holds(stage)


# -- certificates and servers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("trusted", ["old root", "new root"])
def test_a_cross_signed_root_is_validated_up_to_whichever_root_is_trusted(trusted: str, stage: Stage) -> None:
    old, new = stage.authority("old root"), stage.authority("new root")
    bank = stage.site(HOST, new.cross_signed(by=old))
    alice = stage.client("Alice", trusts=[old if trusted == "old root" else new])
    event = alice.visits(bank)
    assert event.outcome == "served"
    whole = (bank.key.pin, new.key.pin, old.key.pin)
    assert event.shown == (whole if trusted == "old root" else whole[:2])
    assert bank.certificate.pins == whole


def test_an_intermediate_is_served_and_its_root_is_not(stage: Stage) -> None:
    root = stage.authority("Root CA")
    bank = stage.site(HOST, root.intermediate("Intermediate CA"))
    assert [each.subject.rfc4514_string() for each in bank.certificate.served] == [f"CN={HOST}", "CN=Intermediate CA"]
    assert stage.client("Alice").visits(bank).shown == bank.certificate.pins


def test_a_root_that_is_not_trusted_any_more_fails(stage: Stage) -> None:
    root = stage.authority("Root CA")
    bank = stage.site(HOST, root)
    alice = stage.client("Alice")
    assert alice.visits(bank).outcome == "served"
    alice.distrusts(root)
    assert alice.visits(bank).outcome == "failed"


def get(server: TLSServer, root: Authority, method: str = "GET") -> tuple[int, str | None, bytes]:
    """A server's answer to a client with OpenSSL's strictest verification: status, X-Told and body."""
    context = ssl.create_default_context(cadata=root.pem.decode("ascii"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    connection = HTTPSConnection(HOST, context=context, timeout=60)
    with loopback_names({HOST: server.port}), contextlib.closing(connection):
        connection.request(method, "/a%20path?query=1")
        answer = connection.getresponse()
        return answer.status, answer.headers["X-Told"], answer.read()


@pytest.mark.parametrize(("method", "body"), [("GET", b"https /a path query=1 None"), ("HEAD", b"")])
def test_a_server_answers_by_its_wsgi_app(method: str, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THIS_PROCESS", "secret")

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        start_response("404 Not Found", [("X-Told", "yes")])
        names = ("wsgi.url_scheme", "PATH_INFO", "QUERY_STRING", "OF_THIS_PROCESS")
        return [" ".join(str(environ.get(name)) for name in names).encode()]

    root = Authority("Root CA")
    with TLSServer(root.intermediate("CA").issue(HOST, KeyPair("key", HOST)), app=app) as server:
        assert get(server, root, method) == (404, "yes", body)
        assert server.received.startswith(f"{method} /a%20path".encode())


def test_an_app_that_fails_is_a_server_error(stage: Stage) -> None:
    bank = stage.site(HOST, stage.authority("Honest CA"))

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        raise RuntimeError("no page today")

    bank.server.app = app
    assert get(bank.server, stage.world.roots[0])[0] == 500
