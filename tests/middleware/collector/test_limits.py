"""The limits of the intake: what is beyond them is dropped and counted, costs next to nothing, and says until when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dynpin.middleware.collector import Limits, Token, collector
from dynpin.middleware.collector.intake import Meter, truncated
from dynpin.middleware.collector.storage import Arrival, Counted
from dynpin.middleware.collector.storage.sql import SQLStorage
from dynpin.middleware.collector.storage.sqlite import SQLiteEngine
from tests.clock import Clock
from tests.middleware.collector.conftest import Start, report


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(per_token=3), "limit-token"),
        (Limits(per_source=3), "limit-source"),
        (Limits(in_all=3), "limit-in-all"),
    ],
)
def test_limits_count_what_they_drop(site: Start, limits: Limits, reason: str) -> None:
    running = site(limits=limits)
    statuses = [running.post(report()).status_code for _ in range(5)]
    assert statuses == [204, 204, 204, 429, 429]
    dropped = running.post(report())
    assert dropped.headers["retry-after"] == "3600"
    assert f'outcome="rejected",reason="{reason}"}} 3' in running.client.get("/metrics").text
    running.clock.forward(3600)
    assert running.post(report()).status_code == 204


def test_an_envelope_is_charged_by_the_report(site: Start) -> None:
    running = site(limits=Limits(per_token=3))
    answer = running.post([{"type": "hpkp", "body": report()}] * 5)
    assert answer.json()["accepted"] == 3
    assert {one["error"] for one in answer.json()["declined"]} == {"limit-token"}


def test_a_dropped_report_is_judged_by_its_path_and_its_source_alone(tmp_path: Path) -> None:
    """What it costs, counted as work: no header, no byte of the body, no JSON and no database."""
    asked: list[str] = []

    class Watched(SQLStorage):
        def tokens(self) -> list[Token]:
            asked.append("tokens")
            return super().tokens()

        def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int]) -> bool:
            asked.append(f"add {len(arrivals)}")
            return super().add(arrivals, outcomes)

    class Headers(list[tuple[bytes, bytes]]):
        def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
            asked.append("header")
            return super().__iter__()

    body = json.dumps(report()).encode()
    storage = Watched(SQLiteEngine(tmp_path / "r.sqlite"), Clock())
    app = collector(storage, tokens=["demo"], limits=Limits(per_source=1), clock=Clock())
    headers = Headers([(b"content-type", b"application/json")])
    scope = {"type": "http", "method": "POST", "path": "/r/demo/enforce", "client": ("192.0.2.7", 1)}

    async def post() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            asked.append("body")
            return {"type": "http.request", "body": body}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(dict(message))

        await app({**scope, "headers": headers}, receive, send)
        return sent

    async def flood() -> list[list[dict[str, Any]]]:
        accepted = await post()
        assert asked.count("tokens") == asked.count("body") == asked.count("add 1") == 1
        assert "header" in asked
        asked.clear()
        return [accepted, *[await post() for _ in range(100)]]

    statuses = [start["status"] for start, _ in asyncio.run(flood())]
    assert statuses == [204] + [429] * 100
    assert asked == []
    app.close()
    assert asked == ["add 0"], "how many were dropped is written at the end"


def test_sources_beyond_the_table_share_one_budget() -> None:
    meter = Meter(Limits(per_source=1, per_token=10**9, in_all=10**9))
    answers = [meter.exceeded("t", f"source-{n}", 0.0) for n in range(50_010)]
    assert answers.count("limit-source") == 9


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("fe80::1%eth0", "fe80::/48"),
        ("no address", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_addresses_are_truncated(address: str | None, network: str) -> None:
    assert truncated(address) == network


def test_whole_addresses_where_asked_for(site: Start) -> None:
    running = site(source_address="whole")
    running.post(report())
    assert running.reports()[0]["source"] == "127.0.0.1"
