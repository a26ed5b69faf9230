"""SIGKILL under load: no acknowledged report is lost, fifty times in a row."""

from __future__ import annotations

import random
import signal
import sqlite3
import threading
from pathlib import Path

import httpx

from tests.middleware.collector.conftest import report
from tests.middleware.collector.test_command import collecting

ROUNDS = 50
SENDERS = 4


def send(uri: str, sender: str, enough: threading.Event, acknowledged: list[str]) -> None:
    """Post one report after another until the server is gone; keep the names of those that it took."""
    with httpx.Client(trust_env=False) as client:
        number = 0
        try:
            while True:
                name = f"{len(acknowledged)}-{number}.{sender}.test"
                number += 1
                if client.post(uri, json=report(hostname=name, noted_hostname=name)).status_code == 204:
                    acknowledged.append(name)
                if number >= random.randrange(5, 60):
                    enough.set()
        except httpx.TransportError:
            return


def test_sigkill_under_load_loses_no_acknowledged_report(tmp_path: Path) -> None:
    file = tmp_path / "r.sqlite"
    total = 0
    for number in range(ROUNDS):
        taken: list[list[str]] = [[] for _ in range(SENDERS)]
        enough = threading.Event()
        with collecting(file, "--token", "demo", "--open-access") as (process, said):
            uri = said["report-uri"]
            threads = [
                threading.Thread(target=send, args=(uri, f"{number}-{sender}", enough, taken[sender]))
                for sender in range(SENDERS)
            ]
            for thread in threads:
                thread.start()
            enough.wait()
            process.send_signal(signal.SIGKILL)
            process.wait()
            for thread in threads:
                thread.join()
        acknowledged = {name for names in taken for name in names}
        assert acknowledged
        db = sqlite3.connect(file)
        stored = {host for (host,) in db.execute("SELECT groups.host FROM reports JOIN groups ON groups.id = group_id")}
        (counted,) = db.execute("SELECT sum(reports) FROM groups").fetchone()
        (rows,) = db.execute("SELECT count(*) FROM reports JOIN samples ON samples.report_id = reports.id").fetchone()
        db.close()
        assert acknowledged <= stored
        assert counted == rows
        total += len(acknowledged)
    print(f"{total} acknowledged reports, {ROUNDS} kills, none lost")
