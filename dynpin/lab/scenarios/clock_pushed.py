"""The client's clock is pushed forward, and all pins expire at once (RFC 7469 §2.3.3)."""

from __future__ import annotations

import logging
from datetime import timedelta

from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=14,
    name="clock-pushed",
    title="The clock is pushed forward",
    story=(
        "Time comes from the network, by NTP, without a signature. Mallory tells Alice's machine a time that is 61 "
        "days in the future. The bank's pins have then expired, and Mallory answers as the bank. The next day somebody "
        "sets the clock right. Does the user agent still have the pins?"
    ),
    rfc=(
        "A host whose Effective Expiration Date is in the past is no longer a Known Pinned Host (§2.3.3). The RFC "
        "assumes that the clock is right."
    ),
    browsers=(
        "chromium-deletes",
        "firefox-keeps-expired",
        "wget2-drops-late",
    ),
    dynpin=(
        "Expiry wins, as in the RFC. But dynpin warns if the clock jumps over the expiry of pins, and keeps the entry "
        'until the clock is set right; on_clock_jump="refuse" lets nothing pass until a person decides.'
    ),
    sources=("2014-10: Jose Selvi at Black Hat Europe, 'Bypassing HTTP Strict Transport Security', with Delorean.",),
)
def clock_pushed(stage: Stage) -> None:
    """The story."""
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    bank = stage.site("bank.test", honest, backups=1, max_age=days(60))
    alice = stage.client("Alice")
    clients = [alice]
    if watched := stage.has("on_clock_jump"):
        clients.append(stage.client("Bob", about='on_clock_jump="refuse"', on_clock_jump="refuse"))
    for client in clients:
        stage.expect(client.visits(bank), "served")

    stage.later(days(1))
    mallory = stage.attacker("Mallory", takes=bank, certificate_of=careless)
    stage.expect(alice.visits(bank.host), "protected")
    for client in clients:
        client.ahead = days(61)
        stage.tells("Mallory", f"answers for a time server: {client.name}'s clock is 61 days ahead", target=client.name)
    with Warnings() as warnings:
        stage.expect(alice.visits(bank.host), "fooled", decisive=True)
        if watched:
            stage.expect(clients[1].visits(bank.host), "protected", option='on_clock_jump="refuse"')
    if stage.agent.name == "dynpin":
        told = "after the last time seen, and the pins of 1 host have expired"
        stage.check("dynpin warns of the jump", any(told in warning for warning in warnings.messages))

    stage.later(days(1))
    for client in clients:
        client.ahead = timedelta()
        stage.tells(client.name, "sets the clock right")
    for client in clients:
        stage.expect(client.visits(bank.host), "protected", chromium="fooled")
    mallory.leaves()
    for client in clients:
        stage.expect(client.visits(bank), "served")


class Warnings(logging.Handler):
    """The log messages of dynpin's client library.

    Attributes:
        messages: the texts of the messages.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.messages.append(record.getMessage())

    def __enter__(self) -> Warnings:
        logging.getLogger("dynpin.clientstore").addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        logging.getLogger("dynpin.clientstore").removeHandler(self)
