"""A TLS session is resumed after a key change: no certificate is shown, and pins still apply (RFC 7469 §2.6)."""

from __future__ import annotations

import ssl
from dataclasses import replace

from dynpin.lab.agents import Machine
from dynpin.lab.agents.library import DynpinAgent
from dynpin.lab.agents.resuming import Resuming, ResumingWget2
from dynpin.lab.agents.wget2 import Wget2Agent
from dynpin.lab.clients import Client
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, minutes


@scenario(
    number=23,
    name="session-resumption",
    title="A session resumed across a key change",
    story=(
        "A returning client may resume its TLS session: no certificate is sent, and nothing is verified. Mallory "
        "copies the memory of the bank's server, with the key and the secret of its session tickets. The bank moves to "
        "its backup key and pins that. Then Mallory answers as the bank, and the clients resume their old sessions. "
        "Alice has visited the bank since the change, Carol has not, and Bob has no pins."
    ),
    rfc=(
        "Pin Validation applies to each connection to a Known Pinned Host (§2.6). The RFC does not mention resumed "
        "sessions, which have no chain."
    ),
    browsers=("wget2-resumes",),
    dynpin=(
        "The chain of the handshake that made the session is checked against the current pins, so a key that was "
        "pinned then and is not pinned now does not pass. A session of unknown origin is refused for a pinned host. "
        "Carol is fooled, as she would be in a full handshake: a stolen key works until the pins change, so change "
        "them, and keep max-age low."
    ),
    sources=(
        "RFC 5077, January 2008, and RFC 8446, August 2018, section 2.2: resumption by tickets.",
        "2014-04: with Heartbleed anybody could read the memory of servers, including keys and ticket secrets.",
    ),
    agents=("dynpin", "wget2"),
)
def session_resumption(stage: Stage) -> None:
    """The story. It takes two hours at most: OpenSSL's tickets last so long by the machine's clock."""
    bank = stage.site("bank.test", stage.authority("Honest CA"), backups=1, max_age=minutes(600))
    memory = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    bank.certificate.configure_cert(memory)
    bank.server.use(memory)
    alice, carol, bob = (_resuming(stage, name, pins=name != "Bob") for name in ("Alice", "Carol", "Bob"))
    for client in (alice, carol, bob):
        stage.expect(client.visits(bank), "served")
    for client in (alice, bob):
        stage.expect(client.visits(bank), "served")
        stage.check(f"{client.name} has resumed a session at the bank", _agent(client).resumed)

    stage.later(minutes(30))
    stolen = bank.certificate
    stage.tells("bank.test", "learns that the memory of its server was copied")
    bank.rotates()
    stage.expect(alice.visits(bank), "served")
    stage.check("the new server accepts no old ticket: Alice has seen its key", not _agent(alice).resumed)

    stage.later(minutes(30))
    mallory = stage.attacker("Mallory", takes=bank, shows=stolen, text="answers as bank.test with the copied secrets")
    mallory.server.use(memory)
    _agent(alice).resume_the_first()
    stage.expect(alice.visits(bank), "protected", wget2="fooled", decisive=True)
    stage.expect(carol.visits(bank), "fooled")
    stage.expect(bob.visits(bank), "fooled")
    for client in (carol, bob):
        stage.check(f"{client.name} has resumed a session, with Mallory", _agent(client).resumed)


def _resuming(stage: Stage, name: str, *, pins: bool) -> Client:
    def install(machine: Machine) -> Resuming | ResumingWget2:
        # Installed on the machine of the agent under test.
        agent = stage.agent.install(machine)
        agent.close()
        if isinstance(agent, Wget2Agent):
            return ResumingWget2(agent.machine)
        return Resuming(agent.machine if isinstance(agent, DynpinAgent) else machine)

    stage.appears(name, "client", "" if pins else "without pinning")
    agent = replace(stage.agent, install=install)
    return Client(stage.world, name, agent, pins=pins, trusts=None, device_of=None, settings={})


def _agent(client: Client) -> Resuming | ResumingWget2:
    if not isinstance(client.memory, Resuming | ResumingWget2):
        raise TypeError(f"{client.name} resumes no sessions")
    return client.memory
