"""Alerts: what is told, and what is kept for the next message."""

from __future__ import annotations

import socketserver
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from email import message_from_bytes
from email.policy import default as default_policy
from pathlib import Path
from typing import Literal

import pytest

from dynpin.errors import StoreError
from dynpin.middleware.collector import Alerts, ServiceSettings, open_storage
from dynpin.middleware.collector.service import Service
from dynpin.middleware.collector.storage import Filter, State, Storage
from dynpin.middleware.collector.worker import Channel, apprise
from tests.clock import Clock
from tests.middleware.collector.conftest import NOW, Inbox, Start, posted, report, vector


class Post(list[tuple[str, str]]):
    """The messages that were sent."""

    def __call__(self, subject: str, text: str) -> None:
        self.append((subject, text))


class Office:
    """A service whose alerts are asked for by the test, not by its thread."""

    def __init__(self, path: Path, alerts: Alerts) -> None:
        self.clock = Clock()
        self.service = Service(open_storage(path, clock=self.clock), ServiceSettings(tokens=["demo"], clock=self.clock))
        self.alerts = alerts

    def receive(self, body: object, times: int = 1) -> None:
        for _ in range(times):
            assert posted(self.service, body) == 204
        self.service.worker.work()

    def tell(self) -> bool:
        return self.alerts.tell(self.service.storage, self.clock())


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def office(tmp_path: Path, post: Post) -> Iterator[Office]:
    office = Office(tmp_path / "r.sqlite", Alerts(post, url="https://pins.example/", digest="daily", rise_at_least=20))
    yield office
    office.service.close()


def test_new_groups_come_together_and_once(office: Office, post: Post) -> None:
    assert not office.tell()
    office.receive(vector("real-chrome-yubico")["body"])
    office.receive(report(hostname="a.test", noted_hostname="b.test"))
    assert office.tell()
    ((subject, text),) = post
    assert subject == "dynpin: 2 new groups"
    assert "demo.yubico.com (enforce): Path variance, 1 report https://pins.example/groups/" in text
    assert not office.tell()
    office.clock.forward(601)
    assert not office.tell()


def test_a_message_waits_until_the_last_is_old_enough(office: Office, post: Post) -> None:
    office.receive(report(hostname="a.test"))
    assert office.tell()
    office.receive(report(hostname="b.test"))
    assert not office.tell()
    office.clock.forward(601)
    assert office.tell()
    assert "b.test" in post[1][1]
    assert "a.test" not in post[1][1]


def test_a_sudden_rise_is_told_once_a_day(office: Office, post: Post) -> None:
    office.receive(report())
    assert office.tell()
    office.clock.forward(26 * 3600)
    office.receive(report(), times=19)
    assert not any("rises" in subject for subject, _ in post)
    office.receive(report(), times=1)
    office.alerts.digest = None
    assert office.tell()
    assert post[-1][0] == "dynpin: 1 sudden rise"
    assert post[-1][1].startswith("20 reports this hour, 0 before: www.example.com")
    office.clock.forward(700)
    assert not office.tell()


def test_a_muted_group_is_silent(office: Office, post: Post) -> None:
    office.receive(report())
    office.service.storage.set_state(office.service.storage.unannounced(1)[0].key, "muted")
    assert not office.tell()


@pytest.mark.parametrize(("state", "times", "told"), [("resolved", 1, True), ("open", 1, False), ("muted", 40, False)])
def test_what_was_resolved_and_comes_again_is_told(
    state: State, times: int, told: bool, office: Office, post: Post
) -> None:
    office.alerts.digest = None
    office.receive(report())
    assert office.tell()
    (group,) = office.service.storage.groups(Filter()).entries
    office.service.storage.set_state(group.key, state)
    office.clock.forward(7 * 86_400)
    assert not office.tell()
    office.receive(report(), times=times)
    assert office.tell() is told
    if told:
        assert post[-1][1].startswith("Resolved, and back again: 1 report this hour, 0 before: www.example.com")
        office.clock.forward(700)
        assert not office.tell()


def test_a_digest_a_day(office: Office, post: Post) -> None:
    office.receive(report(), times=3)
    assert office.tell()
    office.clock.forward(86_400)
    assert office.tell()
    subject, text = post[-1]
    assert subject == "dynpin: daily digest"
    assert "3 reports since the last digest" in text
    assert "3 about www.example.com" in text
    office.receive(report(), times=2)
    office.clock.forward(86_400)
    assert office.tell()
    lines = post[-1][1].split("\n")
    assert lines[0] == "2 reports since the last digest."
    assert [line.split()[0] for line in lines[1:]] == ["2", "2"], "neither of all time, nor of an hour before"


def test_a_clock_that_was_ahead_delays_no_alert(office: Office, post: Post) -> None:
    year = 365 * 86_400
    office.receive(report(hostname="a.test"))
    assert office.tell()
    office.clock.forward(year)
    office.receive(report())
    for _ in range(3):
        office.tell()
        office.clock.forward(601)
    assert sorted(subject for subject, _ in post) == ["dynpin: 1 new group"] * 2 + ["dynpin: daily digest"]
    office.clock.forward(86_400 - year)
    office.receive(report(), times=20)
    for _ in range(3):
        office.tell()
        office.clock.forward(601)
    assert sorted(subject for subject, _ in post[3:]) == ["dynpin: 1 sudden rise", "dynpin: daily digest"]
    # The first one, which that clock has not deleted. Those of this hour are in the next digest.
    assert any(text.startswith("1 report since the last digest.") for _, text in post[3:])


def test_what_could_not_be_sent_is_sent_later(office: Office, post: Post) -> None:
    def refuse(subject: str, text: str) -> None:
        raise OSError("the mail server is away")

    office.receive(report())
    broken = Alerts(refuse)
    assert not broken.tell(office.service.storage, NOW)
    assert office.tell()


def test_a_host_name_cannot_write_lines_of_its_own(office: Office, post: Post) -> None:
    office.receive(report(hostname="a\nNew: everything is fine\x1b[2J" + "x" * 500, noted_hostname=None))
    assert office.tell()
    assert "\nNew: everything" not in post[0][1]
    assert "\x1b" not in post[0][1]
    assert len(post[0][1]) < 400


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")  # Apprise's own import
def test_apprise_delivers_to_a_webhook(hook: Inbox) -> None:
    (channel,) = apprise([f"json://{hook.address}/hook?cto=60&rto=60"])
    channel.send("dynpin: 1 new group", "New: a.test")
    told = hook.next()
    assert (told["title"], told["message"]) == ("dynpin: 1 new group", "New: a.test")


class MailServer(socketserver.TCPServer):
    """A mail server that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        super().__init__(("127.0.0.1", 0), MailSession)


class MailSession(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as one message needs."""

    def handle(self) -> None:
        assert isinstance(self.server, MailServer)
        self.wfile.write(b"220 mail.test\r\n")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                self.server.messages.append(b"".join(iter(self.rfile.readline, b".\r\n")))
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 fine\r\n")
            if verb == b"QUIT":
                return


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")
@pytest.mark.parametrize("digest", ["daily", "weekly"])
def test_apprise_delivers_by_mail(tmp_path: Path, digest: Literal["daily", "weekly"]) -> None:
    """A new group, and then the summary of its day or week, by SMTP."""
    with MailServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"mailto://127.0.0.1:{server.server_address[1]}?from=dynpin@a.test&to=ops@a.test&mode=insecure&cto=60&rto=60"
        office = Office(tmp_path / "r.sqlite", Alerts(apprise([address]), digest=digest))
        office.receive(report(), times=3)
        assert office.tell()
        office.clock.forward(86_400 if digest == "daily" else 7 * 86_400 - 1)
        assert office.tell() is (digest == "daily")
        office.clock.forward(1)
        assert office.tell() is (digest == "weekly")
        office.service.close()
        server.shutdown()
        thread.join()
    new, summary = [message_from_bytes(sent, policy=default_policy) for sent in server.messages]
    assert new["To"] == "ops@a.test"
    assert new["Subject"] == "dynpin: 1 new group"
    assert summary["Subject"] == f"dynpin: {digest} digest"
    for message in (new, summary):
        body = message.get_body()
        assert body is not None
        assert "www.example.com" in body.get_content()


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")
def test_apprise_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="no channel like nowhere://"):
        apprise(["nowhere://x"])


# -- channels that fail -----------------------------------------------------------------------------------------------


def failing(storage: Storage) -> dict[str, float]:
    return {note.name: note.failing_since for note in storage.channels() if note.failing_since is not None}


def test_a_channel_that_hangs_holds_up_no_other_and_is_shown(office: Office, post: Post, site: Start) -> None:
    office.receive(report())
    release, storage = threading.Event(), office.service.storage
    calls: list[str] = []

    def hang(subject: str, text: str) -> None:
        calls.append(subject)
        release.wait(60)

    alerts = Alerts([Channel("alert channel 1 (json://…)", hang), Channel("mail", post)], every=0, patience=0.01)
    told = [alerts.tell(storage, NOW)]
    office.receive(report(hostname="other.test"))
    for second in range(1, 100):
        told.append(alerts.tell(storage, NOW + second))
        if len(post) == 2 and sum(told) == 2:
            break
    assert [subject for subject, _ in post] == ["dynpin: 1 new group"] * 2, "each once"
    assert len(calls) == 1, "it is sent nothing more while it hangs"
    assert list(failing(storage)) == ["alert channel 1 (json://…)"]
    assert len(storage.audit("alerts")) == 1, "that it still fails is not said again"
    page = site(file=Path(storage.name), clock=office.clock).client
    assert "alert channel 1 (json://…) has taken no alert since" in page.get("/").text
    assert "took no alert" in page.get("/audit").text
    entries = {entry["name"]: entry for entry in page.get("/api/alerts").json()["entries"]}
    assert (entries["mail"]["sent"], entries["mail"]["waiting"]) == ("dynpin: 1 new group", 0)
    assert (entries["alert channel 1 (json://…)"]["sent_at"], entries["alert channel 1 (json://…)"]["waiting"]) == (
        None,
        2,
    )
    assert "dynpin: 1 new group" in page.get("/audit").text
    # It took the first message after all, and is told of the other group alone.
    release.set()
    until(lambda: alerts.tell(storage, NOW + 200) or len(calls) > 1)
    until(lambda: alerts.tell(storage, NOW + 400) or storage.pending_alerts("alert channel 1 (json://…)", 9) == [])
    assert calls == ["dynpin: 1 new group"] * 2
    assert failing(storage) == {}
    assert len(post) == 2


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_channel_that_fails_is_told_later_and_no_other_is_told_again(office: Office, post: Post) -> None:
    office.receive(report())
    is_away, storage = [True], office.service.storage
    late = Post()

    def send(subject: str, text: str) -> None:
        if is_away[0]:
            raise OSError("https://chat.test/secret is away")
        late(subject, text)

    alerts = Alerts([Channel("chat", send), Channel("mail", post)])
    assert alerts.tell(storage, NOW)
    office.receive(report(hostname="other.test"))
    for later in (60, 120, 601, 700):
        alerts.tell(storage, NOW + later)
    assert [subject for subject, _ in post] == ["dynpin: 1 new group"] * 2
    assert list(failing(storage)) == ["chat"]
    assert "secret" not in str(storage.audit())
    # A worker that begins now knows the same.
    again = Alerts([Channel("chat", send), Channel("mail", post)])
    is_away[0] = False
    assert again.tell(storage, NOW + 800)
    assert [subject for subject, _ in late] == ["dynpin: 2 new groups"]
    assert len(post) == 2
    assert failing(storage) == {}
    assert [(entry.who, entry.action) for entry in storage.audit("alerts")] == [
        ("chat", "alert-works"),
        ("chat", "alert-failed"),
    ]


def test_a_channel_that_fails_is_tried_once_a_minute(office: Office) -> None:
    office.receive(report())
    tries: list[str] = []

    def refuse(subject: str, text: str) -> None:
        tries.append(subject)
        raise OSError("away")

    alerts = Alerts([Channel("chat", refuse)])
    for second in range(121):
        alerts.tell(office.service.storage, NOW + second)
    assert len(tries) == 3


def test_each_channel_has_its_own_digests(office: Office, post: Post) -> None:
    is_away, late = [True], Post()

    def send(subject: str, text: str) -> None:
        if is_away[0]:
            raise OSError("away")
        late(subject, text)

    alerts, storage = Alerts([Channel("chat", send), Channel("mail", post)], digest="daily"), office.service.storage
    alerts.tell(storage, NOW)
    for hours in (24, 25, 36):
        alerts.tell(storage, NOW + 3600 * hours)
    is_away[0] = False
    alerts.tell(storage, NOW + 3600 * 37)
    alerts.tell(storage, NOW + 3600 * 48)
    assert [subject for subject, _ in post] == ["dynpin: daily digest"] * 2
    assert [subject for subject, _ in late] == ["dynpin: daily digest"]


def test_a_channel_that_is_no_more_is_not_shown(office: Office, post: Post) -> None:
    office.receive(report())
    storage = office.service.storage
    Alerts([Channel("chat", post), Channel("mail", post)]).tell(storage, NOW)
    assert [note.name for note in storage.channels()] == ["chat", "mail"]
    Alerts([Channel("mail", post)]).tell(storage, NOW)
    assert [note.name for note in storage.channels()] == ["mail"]


def test_what_cannot_be_written_down_is_not_told_again(office: Office, post: Post) -> None:
    """The disk became full while the message was sent: that it was sent is written down once there is room."""
    office.receive(report())
    office.alerts.digest = None
    storage = office.service.storage
    with closing(sqlite3.connect(storage.name)) as db:
        db.execute("CREATE TRIGGER full BEFORE DELETE ON pending_alerts BEGIN SELECT RAISE(ABORT, 'full'); END")
        for _ in range(10):
            with pytest.raises(StoreError):
                office.tell()
            office.clock.forward(59)
        db.execute("DROP TRIGGER full")
    assert storage.pending_alerts("the alert channel", 9) != []
    assert office.tell()
    assert storage.pending_alerts("the alert channel", 9) == []
    office.clock.forward(601)
    assert not office.tell()
    assert [subject for subject, _ in post] == ["dynpin: 1 new group"]
