"""What all tests share."""

from __future__ import annotations

import gc
import ipaddress
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Generator
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import Cluster, running
from tests.skips import missing_line

# A busy machine is not a fault of the code: how long an example takes, or making one, decides nothing. The examples are
# the same in each run: the suite tells what a change has broken, and `make fuzz` looks for what nobody thought of.
settings.register_profile(
    "dynpin", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("dynpin")

# What the collection of tests makes stays: looking for garbage in it, again and again, takes a fifth of its time.
gc.disable()


# A shell ignores Ctrl-C in what it starts in the background, and nohup the end of the terminal. Programs that a test
# starts would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Bytes that must be free where the folders of tests are held in memory.
_MEMORY = 2**32


def pytest_configure(config: pytest.Config) -> None:
    """Tests write in memory if there is room, since many would mostly wait for a disk. Benchmarks measure it."""
    memory = Path("/dev/shm")
    if "test_*.py" not in config.getini("python_files"):  # `make bench` and `make stress` name others
        return
    if not memory.is_dir() or shutil.disk_usage(memory).free < _MEMORY or os.statvfs(memory).f_flag & os.ST_NOEXEC:
        return
    # The programs that tests start find it too. What a person has chosen counts, and what the process has that started
    # this one.
    tempfile.tempdir = os.environ.setdefault("TMPDIR", str(memory))


@pytest.fixture(scope="session", autouse=True)
def _own_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """No test reads or writes the pins of the person who runs it, in this process or in one that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def _own_records(caplog: pytest.LogCaptureFixture) -> Generator[None]:
    """A test sees no record of a client's thread that an earlier test has left, and that finds its store gone."""
    earlier = {thread.ident for thread in threading.enumerate() if thread.name in ("dynpin-recovery", "dynpin-reports")}

    def is_own(record: logging.LogRecord) -> bool:
        return record.thread not in earlier

    caplog.handler.addFilter(is_own)
    yield
    caplog.handler.removeFilter(is_own)


@pytest.fixture(scope="session")
def cluster() -> Generator[Cluster]:
    """A PostgreSQL server, one for each process of the tests; see tests/postgres.py."""
    with running() as made:
        yield made


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The documents first, which take longest: each process of pytest-xdist begins with its share of them.

    pytest-xdist gives each process an equal part of the list. At the end no process is left alone with a document.
    """
    processes: int = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    documents = [item for item in items if item.path.name == "test_docs.py"]
    others = [item for item in items if item.path.name != "test_docs.py"]
    part = -(-len(others) // processes)
    items[:] = chain.from_iterable(
        documents[number::processes] + others[number * part : (number + 1) * part] for number in range(processes)
    )


def pytest_collection_finish() -> None:
    """What was imported stays: no collection of garbage in or after a test looks at it again, which takes 0.2 s."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """What a test may leave open is closed in that test, not in the one during which the memory happens to be freed."""
    yield
    if any("ResourceWarning" in str(mark.args) for mark in item.iter_markers("filterwarnings")):
        gc.collect()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Programs and packages that skipped tests would need, in one line at the end."""
    line = missing_line(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ()))
    if line is not None:
        terminalreporter.write_line(line)


def _loopback_only(event: str, args: tuple[object, ...]) -> None:
    """A test that would leave this machine fails, instead of passing where there is a network."""
    if event != "socket.connect" or not isinstance(args[1], tuple):
        return
    host = str(args[1][0])
    try:
        allowed = ipaddress.ip_address(host).is_loopback
    except ValueError:
        allowed = host in ("", "localhost")
    if not allowed:
        raise PermissionError(f"a test connects to {args[1]!r}: tests stay on the loopback interface")


# It stays until the process ends: an audit hook cannot be removed.
sys.addaudithook(_loopback_only)
