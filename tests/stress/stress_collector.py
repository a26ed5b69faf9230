"""SIGKILL under load: no acknowledged report is lost, fifty times in a row."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import threading
from pathlib import Path

import httpx

from dynpin.report import rfc3339
from tests.middleware.collector.conftest import report
from tests.middleware.collector.test_command import collecting

ROUNDS = 50
SENDERS = 4


def send(uri: str, sender: int, enough: threading.Event, acknowledged: list[str]) -> None:
    """Post one report after another until the server is gone; keep what tells those that it took from others.

    In turn a host of its own, and one more second of a burst, whose bodies are kept in parts.
    """
    with httpx.Client(trust_env=False) as client:
        number = 0
        try:
            while True:
                number += 1
                if number % 2:
                    name = f"{number}.{sender}.test"
                    sent = report(hostname=name, noted_hostname=name)
                else:
                    name = rfc3339(sender * 100_000 + number)
                    sent = report(date_time=name)
                if client.post(uri, json=sent).status_code == 204:
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
                threading.Thread(target=send, args=(uri, number * SENDERS + sender, enough, taken[sender]))
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
        rows = db.execute("SELECT host, body FROM readable_reports").fetchall()
        stored = {host for host, _ in rows} | {json.loads(body)["date-time"] for _, body in rows}
        (counted,) = db.execute("SELECT sum(reports) FROM groups").fetchone()
        db.close()
        assert acknowledged <= stored
        assert counted == len(rows)
        total += len(acknowledged)
    print(f"{total} acknowledged reports, {ROUNDS} kills, none lost")
