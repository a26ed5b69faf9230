"""The queue of violation reports (RFC 7469 §3): which reports are queued, and the command that shows them."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from dynpin import Report, StoreError
from dynpin.clientstore import PinStore, ReportQueue, enforce
from dynpin.report import parse_report

from ...clock import BASE, Clock
from ..inbox import Inbox
from ..queued import HOUR, URI, a_report, by_hand, outcomes, violate
from ..world import HOST, World

# -- queued -----------------------------------------------------------------------------------------------------------


def test_a_violation_is_on_the_disk_when_the_error_is_raised(world: World) -> None:
    world.store.pin(HOST, world.header.pins, report_uri=URI)
    error = violate(world, enforce(world.plain_context(), world.store, reporter=by_hand(world.store)))
    with sqlite3.connect(world.store.path) as other:
        rows = other.execute("SELECT host, noted_host, report_uri, body FROM reports").fetchall()
    other.close()
    assert error.report is not None
    assert [row[:3] for row in rows] == [(HOST, HOST, URI)]
    assert parse_report(rows[0][3]).validated_chain == error.report.validated_chain


def test_the_same_report_is_queued_once_an_hour_whenever_it_happened(store: PinStore, clock: Clock) -> None:
    queue = by_hand(store)
    assert queue.add(a_report(), URI) == "queued"
    assert queue.add(a_report(at=BASE + 5), URI) == "repeated"
    assert queue.add(a_report(), "http://other.test/") == "queued"
    assert queue.add(dataclasses.replace(a_report(), port=8443), URI) == "queued"
    assert len(queue.pending()) == 3
    clock.now += HOUR + 1
    assert queue.add(a_report(at=clock.now), URI) == "repeated"  # it still waits to be sent


def test_a_sent_report_is_queued_again_after_an_hour(store: PinStore, clock: Clock, inbox: Inbox) -> None:
    queue = by_hand(store)
    for seconds, added in ((0.0, "queued"), (HOUR - 1, "repeated"), (2.0, "queued")):
        clock.now += seconds
        assert queue.add(a_report(at=clock.now), URI) == added
        queue.send()
    assert len(inbox.requests) == 2


@pytest.mark.parametrize(
    "report_uri",
    [
        f"https://{HOST}/report",
        f"http://{HOST}:8080/report",
        f"https://{HOST.upper()}./report",
        "ftp://report.test/",
        "file:///etc/passwd",
        "/relative",
        "http://",
        "http://[::1",
        "http://a..b/",
    ],
)
def test_a_report_that_must_not_or_cannot_be_sent_is_declined(store: PinStore, report_uri: str) -> None:
    queue = by_hand(store)
    assert queue.add(a_report(), report_uri) == "declined"
    assert queue.reports() == []


@pytest.mark.parametrize(
    ("mode", "report_uri", "added"),
    [
        ("all", "https://collector.example/", "queued"),
        ("off", "https://report.bank.co.uk/", "declined"),
        ("same-domain", "https://report.bank.co.uk/", "queued"),
        ("same-domain", "https://bank.co.uk/", "queued"),
        ("same-domain", "https://report.other.co.uk/", "declined"),
        ("same-domain", "https://collector.example/", "declined"),
    ],
)
def test_the_mode_decides_where_reports_are_sent(store: PinStore, mode: str, report_uri: str, added: str) -> None:
    assert by_hand(store, mode=mode).add(a_report("www.bank.co.uk"), report_uri) == added


def test_reports_queued_in_another_mode_follow_the_present_mode(store: PinStore, inbox: Inbox) -> None:
    by_hand(store).add(a_report("www.bank.co.uk"), URI)
    for mode in ("off", "same-domain"):
        assert by_hand(store, mode=mode).send() == []
    assert outcomes(by_hand(store)) == ["sent"]
    assert len(inbox.requests) == 1


def waiting_hosts(queue: ReportQueue) -> Counter[str]:
    return Counter(report.host for report in queue.pending())


def test_one_attacked_host_fills_its_own_share_of_the_queue_and_its_newest_stays(store: PinStore) -> None:
    queue = by_hand(store)
    queue.add(a_report("other.test"), URI)
    for port in range(1, 70):
        assert queue.add(dataclasses.replace(a_report(), port=port), URI) == "queued"
    assert waiting_hosts(queue) == {HOST: 20, "other.test": 1}
    assert [json.loads(report.body)["port"] for report in queue.pending()][1:] == list(range(50, 70))


def test_noise_of_five_domains_neither_declines_nor_delays_the_report_of_a_bank(store: PinStore, inbox: Inbox) -> None:
    queue = by_hand(store, max_per_hour=6)
    queue.add(a_report("old-bank.test"), URI)
    for number in range(200):
        for domain in range(5):
            queue.add(a_report(f"h{number}.evil{domain}.test"), URI)
    assert queue.add(a_report(), URI) == "queued"
    pending = waiting_hosts(queue)
    assert pending[HOST] == pending["old-bank.test"] == 1
    assert sum(pending.values()) == 1_000
    sent = [delivery.report.host for delivery in queue.send()]
    # The newest report of each domain is sent first, so both banks are among the first attempts of the hour.
    assert HOST in sent
    assert len(sent) == 6
    noisy = {host.rpartition(".evil")[2] for host in sent if "evil" in host}
    assert len(noisy) == len([host for host in sent if "evil" in host])


def test_a_flood_that_goes_on_does_not_delay_the_report_of_a_bank(store: PinStore, clock: Clock) -> None:
    queue = by_hand(store, max_per_hour=6)
    sent: list[str] = []
    for number in range(120):
        for domain in range(5):
            queue.add(a_report(f"h{number}.evil{domain}.test"), URI)
        if number == 30:
            queue.add(a_report(), URI)
        clock.now += 60
        sent += [delivery.report.host for delivery in queue.send()]
    # Six attempts in the first hour, before it was queued. It is among those of the next hour.
    assert HOST in sent[6:12]


def test_a_full_disk_of_the_queue_does_not_hide_the_violation(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Full:
        def add(self, report: Report, report_uri: str) -> None:
            raise StoreError("the disk is full")

    world.store.pin(HOST, world.header.pins, report_uri=URI)
    assert violate(world, enforce(world.plain_context(), world.store, reporter=Full())).report is not None
    assert "could not be kept" in caplog.text


def padded(count: int, *, validated: int = 1) -> Report:
    certificates = tuple(f"-----BEGIN CERTIFICATE-----\n{n:01000}\n-----END CERTIFICATE-----\n" for n in range(count))
    return dataclasses.replace(a_report(), served_chain=certificates, validated_chain=certificates[:validated])


def test_extra_certificates_make_no_report_longer_than_64_kib(store: PinStore) -> None:
    queue = by_hand(store)
    for count in (3, 1_000):
        queue.add(padded(count), URI)
    short, long = (parse_report(report.body) for report in queue.pending())
    assert short.served_chain == padded(3).served_chain
    assert long.validated_chain == padded(3).served_chain[:1]
    # As much of the chain as fits, from the leaf on.
    assert long.served_chain == padded(1_000).served_chain[: len(long.served_chain)]
    assert 63_000 < len(queue.pending()[1].body) <= 65_536


def test_the_validated_chain_is_reported_whole(store: PinStore) -> None:
    queue = by_hand(store)
    queue.add(padded(100, validated=80), URI)
    (kept,) = queue.pending()
    assert json.loads(kept.body)["validated-certificate-chain"] == list(padded(80).served_chain)
    assert json.loads(kept.body)["served-certificate-chain"] == []


def test_taking_a_report_to_send_reads_no_other(store: PinStore, inbox: Inbox) -> None:
    queue = by_hand(store, max_per_hour=1)
    for port in range(40):
        queue.add(dataclasses.replace(padded(60), port=port), URI)
    body = len(queue.pending()[0].body)
    tracemalloc.start()
    try:
        queue.send()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(inbox.requests) == 1
    assert peak < 40 * body / 2


# -- dynpin reports ---------------------------------------------------------------------------------------------------


def dynpin_reports(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    from dynpin.cli.app import app
    from dynpin.cli.errors import run

    code = run(lambda: app(["reports", *map(str, arguments)]))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_lists_sends_and_drops(tmp_path: Path, inbox: Inbox, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pins"
    assert "no pin store at" in dynpin_reports(capsys, "list", "--store", path)[2]
    PinStore(path).close()
    assert dynpin_reports(capsys, "list", "--store", path) == (0, "No violation report was queued.\n", "")
    assert dynpin_reports(capsys, "send", "--store", path) == (0, "No report waits.\n", "")
    with PinStore(path) as store:
        queue = by_hand(store)
        for host in ("a.test", "b.test", "c.test"):
            queue.add(a_report(host), URI)
    code, out, _ = dynpin_reports(capsys, "list", "--store", path)
    assert code == 0
    assert all(text in out for text in ("a.test", "b.test", "waits", URI))
    inbox.status = 404
    code, out, _ = dynpin_reports(capsys, "send", "--store", path)
    assert code == 1
    assert "it answered 404" in out
    code, out, _ = dynpin_reports(capsys, "list", "--json", "--store", path)
    assert [(entry["host"], entry["state"], entry["attempts"]) for entry in json.loads(out)] == [
        (host, "pending", 1) for host in ("a.test", "b.test", "c.test")
    ]
    assert dynpin_reports(capsys, "drop", 1, "--store", path)[:2] == (0, "1 dropped\n")
    assert dynpin_reports(capsys, "drop", 1, "--store", path) == (
        1,
        "",
        f"dynpin: {path} has no report 1; dynpin reports list shows the reports\n",
    )
    inbox.status = 200
    code, out, _ = dynpin_reports(capsys, "send", "--json", "--store", path)
    assert code == 0
    assert [(entry["id"], entry["outcome"]) for entry in json.loads(out)] == [(3, "sent"), (2, "sent")]
    assert dynpin_reports(capsys, "drop", "--all", "--store", path)[:2] == (0, "2 dropped\n")


@pytest.mark.parametrize(
    "damage",
    [*(f"{name} = CAST(x'ff' AS TEXT)" for name in ("host", "noted_host", "report_uri", "body")), "body = 'x'"],
)
def test_a_damaged_text_stops_no_command_and_no_other_report(
    tmp_path: Path, inbox: Inbox, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = tmp_path / "pins"
    with PinStore(path) as store:
        for host in ("a.test", "b.test"):
            by_hand(store).add(a_report(host), URI)
        change = f"UPDATE reports SET {damage} WHERE id = 1"
        store.database.write(lambda connection: connection.execute(change).rowcount)
    assert dynpin_reports(capsys, "list", "--store", path)[0] == 0
    code, out, _ = dynpin_reports(capsys, "list", "--json", "--store", path)
    assert code == 0
    assert "b.test" in [entry["host"] for entry in json.loads(out)]
    code, out, _ = dynpin_reports(capsys, "send", "--store", path)
    assert "b.test: sent" in out


@pytest.mark.parametrize("arguments", [["drop"], ["drop", "1", "--all"], ["send", "--ca", "/nowhere"], ["nonsense"]])
def test_wrong_usage_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, _, err = dynpin_reports(capsys, *arguments, "--store", tmp_path / "pins")
    assert code == 2
    assert err
    assert "Traceback" not in err
