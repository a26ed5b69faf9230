"""The header follows its key files: settled changes alone, never a bad header, no request that notices."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dynpin import PolicyError
from dynpin.middleware import Policy, PublicKeyPinsMiddleware
from dynpin.middleware.policy.watching import Signature, Watcher, signature
from dynpin.middleware.policy.watching import watcher as the_watcher
from tests.middleware.conftest import Connect, Site, serving_asgi


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    """A watcher whose thread sleeps for the length of a test, so that the test alone looks."""
    sleeping = Watcher(interval=3600)
    yield sleeping
    sleeping.before_fork()  # ends the thread


def rotate(site: Site) -> None:
    """Deploy the backup key, with another backup."""
    site.deploy(site.spare)
    site.back_up(site.issue())


def test_a_change_is_taken_at_the_second_look(site: Site, watcher: Watcher) -> None:
    policy = Policy(**site.options)
    watcher.add(policy)
    watcher.look()
    old = policy.header
    rotate(site)
    watcher.look()
    assert policy.header == old
    watcher.look()
    assert str(policy.header) == site.expected()
    assert policy.field == (b"public-key-pins", site.expected().encode())
    assert policy.text_field == ("Public-Key-Pins", site.expected())


def test_a_new_backup_is_never_sent_without_the_chain_that_follows(site: Site, watcher: Watcher) -> None:
    # Rotation: the backup key is deployed, a new one takes its place. Between the two files a header that names the old
    # key and the new backup would lock out whoever notes it, once the chain is there.
    policy = Policy(**site.options)
    watcher.add(policy)
    before, headers = policy.header, set()
    spare, successor = site.issue(), site.issue()
    site.back_up(spare)
    policy.refresh()
    headers.add(str(policy.header))
    site.back_up(successor)
    watcher.look()
    headers.add(str(policy.header))
    site.deploy(spare)
    for _ in range(3):
        watcher.look()
        headers.add(str(policy.header))
    assert len(headers) == 2
    assert str(policy.header) == site.expected()
    assert policy.header != before


def test_a_file_that_is_being_written_is_not_read(
    site: Site, watcher: Watcher, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Policy(**site.options)
    watcher.add(policy)
    old = policy.header
    whole = site.spare.cert_chain_pems[0].bytes()
    for size in range(0, len(whole), 200):
        site.chain.write_bytes(whole[:size])
        watcher.look()
        assert policy.header == old
    assert not caplog.records
    site.chain.write_bytes(whole)
    site.back_up(site.issue())
    watcher.look()
    watcher.look()
    assert str(policy.header) == site.expected()


BAD = {
    "cut off": lambda site: site.chain.write_bytes(site.chain.read_bytes()[:300]),
    "empty": lambda site: site.chain.write_bytes(b""),
    "gone": lambda site: site.chain.unlink(),
    "the backup is deployed": lambda site: site.chain.write_bytes(site.backup.read_bytes()),
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
def test_a_bad_change_keeps_the_last_good_header_and_is_told_once(
    spoil: object, site: Site, watcher: Watcher, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(spoil)
    policy = Policy(**site.options)
    watcher.add(policy)
    old, good = policy.field, site.chain.read_bytes()
    spoil(site)
    for _ in range(5):
        watcher.look()
    assert policy.field == old
    [record] = caplog.records
    assert (record.name, record.levelno) == ("dynpin.middleware", logging.ERROR)
    assert "the last good header stays" in record.getMessage()
    assert "fullchain.pem" in record.getMessage()
    # What is fixed is taken up again.
    site.chain.write_bytes(good)
    site.back_up(site.issue())
    watcher.look()
    watcher.look()
    assert str(policy.header) == site.expected()


def test_a_file_that_is_moved_into_place_or_keeps_its_times_is_seen(site: Site, watcher: Watcher) -> None:
    policy = Policy(**site.options)
    watcher.add(policy)
    times = site.backup.stat()
    # certbot and Kubernetes swing a symbolic link; backup tools set the old times again.
    new = site.folder / "new.pub"
    site.backup.rename(site.folder / "old.pub")
    site.back_up(site.issue())
    site.backup.rename(new)
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
    site.backup.symlink_to(new)
    watcher.look()
    watcher.look()
    assert str(policy.header) == site.expected()


def test_files_that_change_while_they_are_read_are_read_again(site: Site) -> None:
    policy = Policy(**site.options)
    armed = True

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal armed
        if armed and event == "open" and str(arguments[0]) == str(site.backup):
            # The chain has been read, the backup is about to be: the worst moment for a rotation.
            armed = False
            rotate(site)

    sys.addaudithook(audit)
    policy.refresh()
    assert not armed
    assert str(policy.header) == site.expected()


def test_files_that_never_stand_still_change_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    policy = Policy(**site.options)
    old, armed, times = policy.header, True, itertools.count()

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if armed and event == "open" and str(arguments[0]) == str(site.chain):
            os.utime(site.chain, ns=(0, next(times)))

    sys.addaudithook(audit)
    assert not policy.refresh()
    armed = False
    assert policy.header == old
    assert "change faster than they can be read" in caplog.text


def test_a_key_that_clients_do_not_expect_is_not_pinned(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    # A renewal made a new key. Whoever noted that one would be locked out by the fix, which is to deploy the old one.
    policy = Policy(**site.options)
    chain, expected = site.chain.read_bytes(), site.expected()
    site.deploy(site.issue())
    assert policy.refresh()
    assert (policy.header, policy.field, policy.text_field) == (None, None, None)
    [record] = caplog.records
    assert record.levelno == logging.CRITICAL
    assert "locked out until their pins expire" in record.getMessage()
    assert expected in record.getMessage()
    # Another unknown key is no better, and the pinned one brings the header back.
    site.deploy(site.issue())
    assert not policy.refresh()
    site.chain.write_bytes(chain)
    assert policy.refresh()
    assert str(policy.header) == expected


def test_a_worker_that_starts_later_knows_what_was_sent(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    # A server recycles its workers, or is restarted by the hook of a renewal that made a new key.
    memory = site.folder / "sent"
    options = {**site.options, "remember": memory}
    chain, expected = site.chain.read_bytes(), site.expected()
    Policy(**options)
    assert memory.read_text() == f"Public-Key-Pins: {expected}\n"
    site.deploy(site.issue())
    policy = Policy(**options)
    assert (policy.header, policy.field, policy.text_field) == (None, None, None)
    [record] = caplog.records
    assert record.levelno == logging.CRITICAL
    assert f"remove {memory} and restart" in record.getMessage()
    assert expected in record.getMessage()
    # The fix, as in a process that saw the change.
    site.chain.write_bytes(chain)
    assert policy.refresh()
    assert str(policy.header) == expected
    # Whoever knows better says so.
    site.deploy(site.issue())
    memory.unlink()
    assert str(Policy(**options).header) == site.expected()
    assert memory.read_text() == f"Public-Key-Pins: {site.expected()}\n"
    assert sorted(path.name for path in site.folder.iterdir()) == ["backup.pub", "fullchain.pem", "key.pem", "sent"]


def test_a_silent_start_remembers_too(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    options = {**site.options, "remember": site.folder / "sent", "on_invalid": "silence"}
    Policy(**options)
    backup = site.backup.read_bytes()
    site.backup.unlink()
    policy = Policy(**options)
    assert policy.header is None
    site.backup.write_bytes(backup)
    site.deploy(site.issue())
    assert not policy.refresh()
    assert policy.header is None
    assert caplog.records[-1].levelno == logging.CRITICAL


def test_what_is_remembered_follows_the_header(site: Site) -> None:
    memory = site.folder / "sent"
    options = {**site.options, "remember": memory}
    policy = Policy(**options)
    rotate(site)
    assert policy.refresh()
    assert memory.read_text() == f"Public-Key-Pins: {site.expected()}\n"
    # What clients do not note is not remembered.
    report_only = {**options, "mode": "report-only", "report_uri": "https://reports.example.net/r/1"}
    assert Policy(**report_only).header is not None
    assert Policy(**{**options, "mode": "unpin"}).header is not None
    assert memory.read_text() == f"Public-Key-Pins: {site.expected()}\n"


def test_a_memory_that_cannot_be_used_is_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    (site.folder / "sent").write_text("remember the milk")
    with pytest.raises(PolicyError, match="sent, which keeps the header that was sent last, cannot be read"):
        Policy(**site.options, remember=site.folder / "sent")
    with pytest.raises(PolicyError, match=r"cannot be written \(No such file or directory\)"):
        Policy(**site.options, remember=site.folder / "missing" / "sent")
    # While the server runs, the header matters more.
    (site.folder / "sent").unlink()
    policy = Policy(**site.options, remember=site.folder / "sent")
    (site.folder / "sent").unlink()
    (site.folder / "sent").mkdir()
    rotate(site)
    assert policy.refresh()
    assert str(policy.header) == site.expected()
    assert "The header is sent, but not remembered" in caplog.text


def test_of_two_chains_each_must_be_pinned(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    # Which of them a client is shown depends on the client.
    second = site.folder / "rsa.pem"
    second.write_bytes(site.issue(key_type=trustme.KeyType.RSA).cert_chain_pems[0].bytes())
    policy = Policy(**{**site.options, "keys": [site.chain, second]})
    second.write_bytes(site.issue(key_type=trustme.KeyType.RSA).cert_chain_pems[0].bytes())
    assert policy.refresh()
    assert policy.header is None
    assert "locked out until their pins expire" in caplog.text


def test_where_no_client_holds_a_pin_any_key_may_follow(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    policy = Policy(**{**site.options, "mode": "report-only", "report_uri": "https://reports.example.net/r/1"})
    site.deploy(site.issue())
    assert policy.refresh()
    assert policy.header is not None
    assert policy.header.pins == site.pins
    assert not caplog.records


def test_to_deploy_the_backup_is_nothing_to_shout_about(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    spare = site.issue()
    site.back_up(spare)
    policy = Policy(**site.options)
    site.deploy(spare)
    site.back_up(site.issue())
    assert policy.refresh()
    assert not policy.refresh()
    assert not caplog.records


def test_a_policy_that_nobody_holds_is_watched_no_more(site: Site, watcher: Watcher) -> None:
    policy = Policy(**site.options)
    gone = weakref.ref(policy)
    watcher.add(policy)
    watcher.look()
    del policy
    gc.collect()
    assert gone() is None


def test_a_member_that_fails_ends_nothing(site: Site, watcher: Watcher, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        made_from: Signature = ()
        looks = 0

        def signature(self) -> Signature:
            self.looks += 1
            raise RuntimeError("a fault of ours")

        def refresh(self) -> bool:
            return False

    broken, policy = Broken(), Policy(**site.options)
    watcher.add(broken)
    watcher.add(policy)
    rotate(site)
    watcher.look()
    watcher.look()
    assert str(policy.header) == site.expected()
    assert broken.looks == 2
    assert "dynpin-policy-watcher could not look at" in caplog.text
    assert "a fault of ours" in caplog.text


def test_a_policy_of_bare_pins_has_nothing_to_watch(site: Site) -> None:
    policy = Policy(keys=site.pins[0], backups=site.pins[1], max_age=60)
    policy.watch()
    assert policy.signature() == ()


def test_a_missing_file_has_a_signature_too(tmp_path: Path) -> None:
    assert signature([tmp_path / "absent", Path("a\0b")]) == (None, None)


def test_no_request_reads_a_file_or_looks_at_one(site: Site, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("hello"))])
    client = connect(serving_asgi, PublicKeyPinsMiddleware(app, **site.options), site)
    expected = client.get("/").headers["public-key-pins"]
    touched: list[str] = []
    watched = {str(site.chain), str(site.backup)}
    real = os.stat

    def stat(path: Any, **keywords: Any) -> os.stat_result:
        if str(path) in watched and threading.current_thread() is not the_watcher.thread:
            touched.append(str(path))
        return real(path, **keywords)

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]) in watched:
            touched.append(str(arguments[0]))

    sys.addaudithook(audit)
    monkeypatch.setattr(os, "stat", stat)
    for _ in range(20):
        assert client.get("/").headers["public-key-pins"] == expected
    assert not touched
    # And the two traps do see what they are set for.
    site.chain.stat()
    site.chain.read_bytes()
    assert len(touched) == 2


def test_a_change_while_requests_run(site: Site, connect: Connect) -> None:
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("hello"))])
    client = connect(serving_asgi, PublicKeyPinsMiddleware(app, **site.options), site)
    old = client.get("/").headers["public-key-pins"]
    site.back_up(site.issue())
    new = site.expected()
    seen = [old]
    for _ in range(100_000):
        response = client.get("/")
        assert (response.status_code, response.text) == (200, "hello")
        seen.append(response.headers["public-key-pins"])
        if seen[-1] == new:
            break
    assert dict.fromkeys(seen) == dict.fromkeys([old, new])


FORK = """
import os, sys, threading
from pathlib import Path
from dynpin import PolicyError
from dynpin.middleware import Policy, PublicKeyPinsMiddleware
from dynpin.middleware.policy.watching import watcher

chain, backup, successor = sys.argv[1:]
middleware = PublicKeyPinsMiddleware(None, keys=chain, backups=backup, max_age=3600)
[policy] = middleware.policies
first, before = watcher.thread, policy.header

def follows():
    # The new file is there: this process has a watcher of its own when its header changes.
    while policy.header == before:
        watcher.thread.join(0.05)
    return watcher.is_alive and watcher.thread is not first and threading.active_count() == 2

assert first.is_alive()
child = os.fork()
if child == 0:
    os._exit(0 if follows() else 1)
Path(backup).write_bytes(Path(successor).read_bytes())
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status))
print("parent", 0 if follows() else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork_parent_and_child_watch_on(site: Site) -> None:
    # gunicorn --preload builds the app, and forks then. From 3.12 on Python warns of threads at a fork: there is none.
    successor = site.folder / "successor.pub"
    successor.write_bytes(site.chain.read_bytes())
    site.deploy(site.issue())
    command = [sys.executable, "-W", "error", "-c", FORK, *map(str, (site.chain, site.backup, successor))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.stdout, done.returncode) == ("child 0\nparent 0\n", 0), done.stderr
