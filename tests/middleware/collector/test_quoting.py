"""What strangers wrote, in every other system's markup: payloads by channel."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from dynpin.middleware.collector import Alerts, ServiceSettings, Token
from dynpin.middleware.collector.service import Service
from dynpin.middleware.collector.web.export import FORMATS, written
from dynpin.middleware.collector.worker import apprise, plain
from tests.clock import Clock
from tests.middleware.collector.chains import authority
from tests.middleware.collector.conftest import Inbox, Site, Start, posted, report, running_site

PAYLOADS = {
    "slack link": "<https://evil.test|Sign in>",
    "slack channel": "<!channel> look",
    "slack mention": "<@U012AB3CD>",
    "discord everyone": "@everyone",
    "markdown link": "[Sign in](https://evil.test)",
    "markdown picture": "![](https://evil.test/beacon.png)",
    "markdown code": "`code` *bold* _it_ ~gone~ # head",
    "url": "https://evil.test/",
    "html": "<img src=x onerror=alert(1)>",
    "entity": "&lt;b&gt;",
    "mail header": "a\r\nBcc: all@a.test",
    "line": "a\nNew: everything is fine",
    "ansi": "\x1b[2J\x1b]0;title\x07",
    "c1": "\x9b2J",
    "right to left": "a\u202eb",
    "formula": "=HYPERLINK(1)",
    "wide formula": "\uff1dcmd",
    "formula behind a semicolon": "a;=cmd",
    "formula behind a tab": "a\t=cmd",
    "formula behind spaces": "  @SUM(A1)",
}
MARKUP = set("<>|@[](){}!`*~#&=/:;'\"\\\x1b\x07\x9b\r\u202e")
payloads = pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)


@payloads
def test_chat_and_mail(payload: str, tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    clock = Clock()
    service = Service(
        tmp_path / "r.sqlite",
        ServiceSettings(
            tokens=["demo"],
            clock=clock,
            alerts=Alerts(lambda subject, text: told.append((subject, text)), digest="daily"),
        ),
        has_worker=False,
    )
    assert posted(service, report(hostname=payload)) == 204
    service.worker.work()
    clock.forward(86_400)
    service.worker.work()
    service.close()
    (subject, new), (_, digest) = told
    for text in (subject, new, digest):
        theirs = re.sub(r"dynpin: |New: |\(enforce\): |: ", " ", text)
        assert not MARKUP & set(theirs), text
    assert len(new.splitlines()) == 1


def test_a_name_that_is_one_stays_as_it_is() -> None:
    for name in ("www.example.com", "xn--strae-oqa.de", "my_host.corp.test", "a-b.test"):
        assert plain(name) == name
    assert plain("_dmarc.a.test") == "?dmarc.a.test"
    assert len(plain("x" * 5000)) == 80


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")  # Apprise's own import
def test_a_chat_server_gets_plain_text(hook: Inbox) -> None:
    (channel,) = apprise([f"mmost://{hook.address}/secret-token?cto=60&rto=60"])
    channel.send("dynpin: 1 new group", f"New: {plain(PAYLOADS['slack link'])}")
    assert "<" not in hook.next()["text"]
    assert "secret-token" not in channel.name


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")
def test_a_channel_that_fails_is_named_once_and_the_others_are_told(
    hook: Inbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    channels = apprise([f"json://{hook.address}/?cto=60&rto=60", "json://127.0.0.1:1/secret?cto=1&rto=1"])
    clock = Clock()
    service = Service(
        tmp_path / "r.sqlite",
        ServiceSettings(tokens=["demo"], clock=clock, alerts=Alerts(channels, every=0)),
        has_worker=False,
    )
    for number in range(3):
        assert posted(service, report(hostname=f"h{number}.test")) == 204
        service.worker.work()
        clock.forward(1)
    service.close()
    assert hook.qsize() == 3
    told = [each.getMessage() for each in caplog.records if each.name == "dynpin.collector"]
    assert len(told) == 1
    assert told[0].startswith("alert channel 2 (json://…) did not take an alert")
    assert "secret" not in told[0]


def test_where_no_channel_works_it_is_tried_once_a_minute(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tries: list[str] = []

    def refuse(subject: str, text: str) -> None:
        tries.append(subject)
        raise OSError("away\nforged line")

    clock = Clock()
    service = Service(
        tmp_path / "r.sqlite", ServiceSettings(tokens=["demo"], clock=clock, alerts=Alerts(refuse)), has_worker=False
    )
    assert posted(service, report()) == 204
    for _ in range(90):
        service.worker.work()
        clock.forward(1)
    service.close()
    assert len(tries) == 2
    told = [each.getMessage() for each in caplog.records if "did not take" in each.getMessage()]
    assert told == ["the alert channel did not take an alert: away?forged line"]


def broken_chain(payload: str) -> dict[str, object]:
    return report(
        hostname=payload,
        served_certificate_chain=[f"-----BEGIN CERTIFICATE-----\n{payload}\n-----END CERTIFICATE-----\n"],
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A collector that was sent each payload by its own token, wherever a stranger can put one."""
    tokens = [Token(f"t{number}", payload) for number, payload in enumerate(PAYLOADS.values())]
    with running_site(file=tmp_path_factory.mktemp("told") / "reports.sqlite", tokens=tokens) as running:
        for number, payload in enumerate(PAYLOADS.values()):
            leaf = authority(payload.replace("\n", " ")[:64])
            chain = {"served_certificate_chain": [leaf.pem], "validated_certificate_chain": [leaf.pem]}
            # No header can hold the rest.
            agent = "".join(each for each in payload if " " <= each <= "~").strip()
            sent = report(hostname=payload, noted_hostname=payload, **chain)
            assert running.post(sent, f"/r/t{number}/enforce", **{"user-agent": agent}).status_code == 204
            sent = broken_chain(payload)
            raw = json.dumps(sent, ensure_ascii=False)
            assert running.post(raw, f"/r/t{number}/report-only").status_code == 204
        running.work()
        yield running


def group_of(running: Site, payload: str, mode: str) -> str:
    token = f"t{list(PAYLOADS.values()).index(payload)}"
    (group,) = running.groups(urlencode({"token": token, "mode": mode}))
    return str(group["group"])


@pytest.mark.parametrize("what", ["reports", "groups"])
def test_csv(what: str, told: Site) -> None:
    text = told.client.get(f"/export/{what}.csv").text
    assert not {"\x1b", "\x07", "\x9b", "\t", "\u202e"} & set(text)
    assert all(line.startswith('"') for line in text.splitlines())
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == 2 * len(PAYLOADS)
    for part in (part for row in rows for cell in row.values() for part in cell.split(";")):
        assert not part.lstrip().startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))


def test_an_export_is_sent_in_large_pieces() -> None:
    """A thread makes each piece, so that a piece for each row takes more time than the rows."""
    rows: list[dict[str, object]] = [{"host": "a.test", "reports": number} for number in range(5_000)]
    for form in FORMATS:
        assert len(list(written(iter(rows), form))) < 50


@payloads
def test_pages(payload: str, told: Site) -> None:
    """A bidirectional sign would reverse what the page says after it."""
    group = f"/groups/{group_of(told, payload, 'enforce')}"
    for path in ("/", "/groups", "/reports", "/set-up", group, f"/groups?{urlencode({'host': payload})}"):
        text = told.client.get(path).text
        assert all(character.isprintable() or character in "\n\xa0" for character in text), path


@payloads
def test_a_terminal_that_downloads(payload: str, told: Site) -> None:
    group = f"/groups/{group_of(told, payload, 'report-only')}"
    for path in (f"{group}/served.pem", f"{group}/report.json", "/api/groups", "/export/reports.ndjson", "/metrics"):
        text = told.client.get(path).text
        assert all(character.isprintable() or character == "\n" for character in text), path
    assert told.client.get(f"{group}/report.json").json() == broken_chain(payload)


def test_logs(site: Start, caplog: pytest.LogCaptureFixture) -> None:
    running: Site = site()
    for payload in PAYLOADS.values():
        running.post(report(hostname=payload))
        running.client.get("/groups", params={"host": payload})
    running.work()
    for record in caplog.records:
        if record.name.startswith("dynpin"):
            assert record.getMessage().isprintable()
