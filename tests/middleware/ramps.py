"""What the tests of the ramp share."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dynpin.middleware import Policy
from dynpin.middleware.policy.ramp.driver import Driver
from dynpin.middleware.policy.steps import ASK_EVERY, DEFAULT_STEPS, Ramp
from tests.clock import Clock
from tests.deploy.commands import dynpin
from tests.middleware.collector.conftest import Site as Collector
from tests.middleware.collector.conftest import running_site
from tests.middleware.conftest import HOST, Site

MINUTE, HOUR, DAY = 60, 3600, 86_400


TARGET = 30 * DAY


STEPS = '[{ send = "report-only", for = "2 hours" }, { send = "5 minutes", for = "1 hour" }]'


REPORT = {"hostname": HOST, "port": 443, "known-pins": ["d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM="]}


class Server:
    """One process of a server: a policy from an inventory, and what moves its ramp."""

    def __init__(self, inventory: Path, clock: Clock) -> None:
        self.clock = clock
        self.policy = Policy.from_inventory(inventory)
        self.driver = Driver(interval=3600, clock=clock)
        self.driver.add(self.policy)

    def run(self, seconds: float) -> None:
        """Let time pass, with a look every few minutes, as the thread does."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.forward(min(ASK_EVERY, end - self.clock.now))
            self.look()

    def look(self) -> None:
        self.driver.look()
        self.policy.refresh()

    def sent(self) -> object:
        """The max-age that is sent, or that it is report-only."""
        header = self.policy.header
        assert header is not None
        return "report-only" if header.report_only else header.max_age


class Ground:
    """A site with a ramp, and a real collector that can be switched off and on."""

    def __init__(self, site: Site, stack: ExitStack) -> None:
        self.site, self.stack, self.clock = site, stack, Clock()
        self.inventory = site.folder.parent / "dynpin.toml"
        self.state = site.folder.parent / "dynpin-ramp.sqlite"
        self.collector = self.collect()

    def collect(self, **options: Any) -> Collector:
        options = {"clock": self.clock, "file": self.site.folder / "reports.sqlite", **options}
        self.collector = self.stack.enter_context(running_site(**options))
        return self.collector

    def describe(self, ramp: str = f"steps = {STEPS}", *, token: str = "demo", mode: str = "enforce") -> Path:
        self.inventory.write_text(
            f'hosts = ["{HOST}"]\nkeys = ["tls/fullchain.pem"]\nbackups = ["tls/backup.pub"]\n[policy]\n'
            f'max_age = "30 days"\nmode = "{mode}"\nreport_uri = "{self.collector.url}/r/{token}/enforce"\n'
            f"[ramp]\n{ramp}\n"
        )
        return self.inventory

    def server(self, ramp: str = f"steps = {STEPS}", **more: str) -> Server:
        server = Server(self.describe(ramp, **more), self.clock)
        self.stack.callback(server.driver.before_fork)
        server.look()
        return server

    def report(self, **members: object) -> None:
        assert self.collector.post(REPORT | members).status_code == 204

    def mark(self, state: str) -> None:
        self.collector.groups()  # what waits is stored
        with sqlite3.connect(self.collector.file) as db:
            db.execute("UPDATE groups SET state = ?", (state,))
        db.close()


RAMP = Ramp(DEFAULT_STEPS, TARGET, "http://c", "t", "http://c/r/t/enforce", Path("ramp"))


def ramp(ground: Ground, *arguments: str, code: int = 0) -> str:
    now = datetime.fromtimestamp(ground.clock.now, UTC).isoformat()
    result = dynpin("ramp", *arguments, "--inventory", str(ground.inventory), "--now", now)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output
