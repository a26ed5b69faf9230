"""Forks of all kinds: acknowledged pins are there, the writes of others are visible, or the child refuses."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import pytest

from dynpin import Pin
from dynpin.clientstore import PinStore
from dynpin.clientstore.store.database import Database

LEAF, OTHER = (Pin(bytes([number]) * 32) for number in (1, 5))

# The functions for each script. A process writes `count` hosts with its own name, one noting each, and counts the
# acknowledged ones. At the end another program checks that they are there.
PRELUDE = """
import ctypes, json, multiprocessing, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
before_the_fork = lambda: None
os.register_at_fork(before=lambda: before_the_fork())  # before dynpin's, so after them at a fork
from dynpin import Pin, StoreError
from dynpin.clientstore import PinStore
path, folder = sys.argv[1], sys.argv[2]
LEAF = Pin(bytes([1]) * 32)

def pin(store, host):
    # A process that writes all the time may leave another one no gap for a second, and that is told so.
    while True:
        try:
            return store.pin(host, [LEAF])
        except StoreError as error:
            if "another process was writing" not in str(error):
                raise

def work(store, name, count=40):
    # The names that were acknowledged, on the disk before the next one is pinned.
    with open(f"{folder}/{name}", "w") as log:
        for number in range(count):
            pin(store, f"h{number}.{name}.test")
            assert store.known_host(f"h{number}.{name}.test") is not None
            log.write(f"h{number}.{name}.test\\n")
            log.flush()

def told(descriptor):
    return os.read(descriptor, 1)

def child_of(fork, act):
    child = fork()
    if child == 0:
        try:
            act()
        except BaseException as error:
            with open(f"{folder}/refused", "a") as log:
                log.write(f"{type(error).__name__}: {error}\\n")
            os._exit(1)
        os._exit(0)
    return child

def bypassing(threads=1):
    # The child has the lock of the interpreter as it was: PyDLL keeps it, and no other thread may be about to take it
    # or to end, or the child waits for ever for a thread that it does not have. Threads that go on wait for locks.
    time.sleep(0.01)
    while len(os.listdir("/proc/self/task")) > threads:
        time.sleep(0.001)
    return ctypes.PyDLL(None).fork()

store = PinStore(path)
"""

SHAPES = {
    "both write at once": """
        work(store, "before", 5)
        child = child_of(os.fork, lambda: work(store, "child"))
        work(store, "parent")
        os.waitpid(child, 0)
    """,
    "the parent closes the store first": """
        work(store, "before", 5)
        ready, go = os.pipe()
        child = child_of(os.fork, lambda: (work(store, "child-a"), told(ready), work(store, "child-b")))
        store.close()
        os.write(go, b"x")
        os.waitpid(child, 0)
    """,
    "the parent exits first": """
        work(store, "before", 5)
        ready, go = os.pipe()
        if os.fork() == 0:
            told(ready)  # the end of the parent closes the pipe or tells
            work(store, "child")
            os._exit(0)
        os.write(go, b"x")
        os._exit(0)
    """,
    "the parent is killed": """
        work(store, "before", 5)
        ready, go = os.pipe()
        if os.fork() == 0:
            work(store, "child-a")
            os.kill(os.getppid(), signal.SIGKILL)
            work(store, "child-b")
            os._exit(0)
        work(store, "parent", 100_000)
    """,
    "the child closes and ends first": """
        work(store, "before", 5)
        child = child_of(os.fork, lambda: (work(store, "child"), store.close()))
        os.waitpid(child, 0)
        work(store, "parent")
    """,
    "a daemon, by a double fork": """
        work(store, "before", 5)
        ready, go = os.pipe()
        middle = os.fork()
        if middle == 0:
            os.setsid()
            if os.fork() == 0:
                work(store, "daemon")
                os.write(go, b"x")
                os._exit(0)
            os._exit(0)
        os.waitpid(middle, 0)
        told(ready)
        work(store, "parent")
    """,
    "multiprocessing": """
        work(store, "before", 5)
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=work, args=(store, f"child{number}")) for number in range(3)]
        for child in children:
            child.start()
        work(store, "parent")
        for child in children:
            child.join()
            assert child.exitcode == 0
    """,
    "a prefork server whose master is killed": """
        work(store, "before", 5)
        workers = [child_of(os.fork, lambda n=n: work(store, f"worker{n}", 60)) for n in range(3)]
        if os.fork() == 0:  # somebody who watches, and goes on
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    """,
    "forks while threads read and write": """
        stop = threading.Event()
        def loop(number):
            while not stop.is_set():
                pin(store, f"loop{number}.test")
                for _ in range(2_000):
                    assert store.known_host(f"loop{number}.test") is not None
        threads = [threading.Thread(target=loop, args=(number,), daemon=True) for number in range(3)]
        for thread in threads:
            thread.start()
        children = [child_of(os.fork, lambda n=n: work(store, f"child{n}", 5)) for n in range(8)]
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, open(f"{folder}/refused").read()
        stop.set()
        for thread in threads:
            thread.join()
    """,
    "a thread opens the store while another forks": """
        # Registered first, so it runs last of all that runs before the fork: when the store has closed what is open.
        opening, forked = threading.Event(), threading.Event()
        def before_the_fork():
            thread.start()
            opening.wait(0.5)  # in vain, since nothing may open now
        def on_open(event, arguments):
            if event == "sqlite3.connect" and threading.current_thread() is thread:
                opening.set()
                forked.wait(5)
        thread = threading.Thread(target=lambda: (store.known_host("h0.test"), work(store, "thread")))
        sys.addaudithook(on_open)
        child = child_of(os.fork, lambda: work(store, "child"))
        forked.set()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, open(f"{folder}/refused").read()
        thread.join()
    """,
    "past Python's hooks, before the first use": """
        child = child_of(bypassing, lambda: work(store, "child"))
        work(store, "parent")
        os.waitpid(child, 0)
    """,
}
REFUSING = {
    "past Python's hooks, with an open connection": """
        work(store, "before", 5)
        child = child_of(bypassing, lambda: work(store, "child"))
        work(store, "parent-a")
        os.waitpid(child, 0)
        work(store, "parent-b")
    """,
    "past Python's hooks, and the parent is killed": """
        work(store, "before", 5)
        ready, go = os.pipe()
        if bypassing() == 0:
            os.kill(os.getppid(), signal.SIGKILL)
            try:
                work(store, "child")
            except StoreError as error:
                open(f"{folder}/refused", "a").write(f"StoreError: {error}\\n")
            os._exit(0)
        work(store, "parent", 100_000)
    """,
    "past Python's hooks, and a new store in the child": """
        work(store, "before", 5)
        child = child_of(bypassing, lambda: PinStore(path))
        os.waitpid(child, 0)
        work(store, "parent")
    """,
}


def run(tmp_path: Path, shape: str) -> tuple[set[str], Path]:
    """Run one kind of fork; returns what its processes were told, and the store."""
    folder, path = tmp_path / "said", tmp_path / "pins.sqlite"
    folder.mkdir()
    PinStore(path).close()
    script = PRELUDE + textwrap.dedent(shape)
    # Every child has the output pipe: it ends with the last process.
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(folder)], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.stderr == ""
    acknowledged = {line for log in folder.iterdir() if log.name != "refused" for line in log.read_text().split()}
    return acknowledged, path


@pytest.mark.parametrize("shape", list(SHAPES))
def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path, shape: str) -> None:
    acknowledged, path = run(tmp_path, SHAPES[shape])
    assert acknowledged
    assert not (tmp_path / "said" / "refused").exists(), (tmp_path / "said" / "refused").read_text()
    with PinStore(path) as store:
        assert acknowledged <= {known.host for known in store.hosts()}
        ((found,),) = store.database.select("PRAGMA integrity_check")
        assert found == "ok"


@pytest.mark.parametrize("shape", list(REFUSING))
def test_a_child_that_inherits_an_open_connection_refuses(tmp_path: Path, shape: str) -> None:
    acknowledged, path = run(tmp_path, REFUSING[shape])
    refused = (tmp_path / "said" / "refused").read_text()
    assert refused.startswith("StoreError: ")
    assert "was forked without Python's os.fork" in refused
    assert "Open the PinStore after the fork (in uWSGI: lazy-apps = true)" in refused
    assert not any("child" in host for host in acknowledged)
    with PinStore(path) as store:
        assert acknowledged <= {known.host for known in store.hosts()}


APART = {
    "two threads open a connection at once": """
        database, held = store.database, []
        def open_one():
            held.append(database._open_reader())
        class Switch:  # stands among the connections that were freed
            reached = False
            def __call__(self):
                if not self.reached:
                    self.reached = True
                    thread = threading.Thread(target=open_one)
                    thread.start()
                    thread.join()
        database._made.append(Switch())
        open_one()
        assert set(database._open_readers()) == set(held)
        for connection in held:
            connection.close()
        work(store, "parent", 1)
    """,
    "a connection that could not be opened, whose error is kept": """
        import resource
        store.rest()
        kept = []
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, most))
        try:
            store.known_host("a.test")
        except StoreError as error:
            kept.append(error)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        assert kept
        child = child_of(os.fork, lambda: work(store, "child"))
        os.waitpid(child, 0)
    """,
    "past Python's hooks, while the store in memory is written": """
        memory, began, end = PinStore.private(), threading.Event(), threading.Event()
        memory.pin("a.test", [LEAF])
        def job(connection):
            connection.execute("DELETE FROM hosts")
            began.set()
            end.wait()
        thread = threading.Thread(target=memory.database.write, args=(job,))
        thread.start()
        began.wait()
        fork = lambda: bypassing(threads=3)
        child = child_of(fork, lambda: (work(memory, "child"), memory.known_host("a.test").host))
        os.waitpid(child, 0)
        end.set()
        thread.join()
        work(store, "parent", 1)
    """,
}


@pytest.mark.parametrize("shape", list(APART))
def test_a_child_refuses_nothing_if_nothing_was_open(tmp_path: Path, shape: str) -> None:
    acknowledged, _ = run(tmp_path, APART[shape])
    assert acknowledged
    assert not (tmp_path / "said" / "refused").exists(), (tmp_path / "said" / "refused").read_text()


LONG = """
    said = []
    def look():
        try:
            store.known_host("a.test")
        except StoreError as error:
            said.append(str(error))
    def look_during_the_fork():
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join(60)
    before_the_fork = look_during_the_fork
    child = child_of(os.fork, lambda: None)
    before_the_fork = lambda: None
    os.waitpid(child, 0)
    assert [text.endswith("cannot be opened during a fork; try again") for text in said] == [True], said
    work(store, "parent", 1)
"""


def test_a_look_up_waits_for_a_fork_but_not_for_ever(tmp_path: Path) -> None:
    assert run(tmp_path, LONG)[0] == {"h0.parent.test"}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_closes_no_inherited_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynpin.clientstore.store.database.PATIENCE", 0.01)
    database = Database(tmp_path / "pins.sqlite")
    connection = database._take()
    connection.thread = 0  # another thread's
    inherited = weakref.ref(connection)
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's own process
        del connection
        gc.collect()
        os._exit(0 if inherited() is not None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    connection.close()
    database.close()


def test_each_side_sees_what_the_other_writes(tmp_path: Path) -> None:
    seen, path = tmp_path / "seen.json", tmp_path / "pins.sqlite"
    script = PRELUDE + textwrap.dedent(
        """
        store.pin("first.test", [LEAF])
        there, here = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            found = []
            for number in range(50):
                told(there[0])
                found.append(store.known_host(f"p{number}.test") is not None)
                store.pin(f"c{number}.test", [LEAF])
                os.write(here[1], b"x")
            json.dump(found, open(folder, "w"))
            os._exit(0)
        for number in range(50):
            store.pin(f"p{number}.test", [LEAF])
            os.write(there[1], b"x")
            told(here[0])
            assert store.known_host(f"c{number}.test") is not None
        os.waitpid(child, 0)
        """
    )
    subprocess.run([sys.executable, "-c", script, str(path), str(seen)], check=True, timeout=240)
    assert json.loads(seen.read_text()) == [True] * 50
