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
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dynpin.middleware import Policy, PublicKeyPinsMiddleware
from dynpin.middleware.policy.watching import Signature, Watcher, signature
from dynpin.middleware.policy.watching import watcher as the_watcher
from tests.middleware.conftest import Connect, Site, serving_asgi

from .reloads import rotate


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    """A watcher whose thread sleeps for the length of a test, so that the test alone looks."""
    sleeping = Watcher(interval=3600)
    yield sleeping
    sleeping.before_fork()  # ends the thread


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
    # key and the new backup would lock out clients that note it, when the chain is there.
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
