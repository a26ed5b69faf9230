"""Asks the judging process. If a report takes too long, ends the process and starts a new one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable

from dynpin.errors import DynpinError

from ..triage import Diagnosis, Question, Settings, unjudged

__all__ = ["JudgeProcess", "JudgeUnavailable"]

# Seconds for one report. An honest report takes milliseconds; 60 signatures of the slowest keys take 0.2 s.
BUDGET_S = 5.0
_START_S = 60.0
_NICE = 10
_MODULE = "dynpin.middleware.collector.triage.process"


class JudgeUnavailable(DynpinError):
    """The judging process cannot be started. Nothing is wrong with the report."""


class JudgeProcess:
    """Judges reports in a separate process, so that a stranger's report delays nothing else.

    Args:
        settings: gives the settings of the process, at its start.
        budget: seconds that one report may take.
    """

    def __init__(self, settings: Callable[[], Settings], *, budget: float = BUDGET_S) -> None:
        self.budget = budget
        self.starts = 0
        self._settings = settings
        self.renew()

    def renew(self) -> None:
        """Start without a process; a parent's process is left alone."""
        self._changing = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False

    @property
    def pid(self) -> int | None:
        """The id of the process, or None."""
        return None if self._process is None else self._process.pid

    def ask(self, question: Question) -> Diagnosis:
        """The diagnosis of a report. It says "could not be judged" if the report takes longer than the budget.

        Raises:
            JudgeUnavailable: if there is no process.
        """
        process = self._running()
        line, in_time = _answer(process, json.dumps(question).encode() + b"\n", self.budget)
        if not line:
            self._end()
        if self._closing:
            raise JudgeUnavailable("the collector ends")
        if line:
            return Diagnosis.model_validate_json(line)
        if not in_time:
            return unjudged(
                f"The report took more than {self.budget:g} seconds to judge, and an honest report does not."
            )
        return unjudged("The judging process failed on this report.")

    def close(self) -> None:
        """End the process at once. A caller that waits for its answer gets an error."""
        with self._changing:
            self._closing = True
        self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is not None and process.poll() is None:
            return process
        self._end()
        with self._changing:
            if self._closing:
                raise JudgeUnavailable("the collector ends")
            process = self._process = _start()
        self.starts += 1
        line, _ = _answer(process, json.dumps(self._settings()).encode() + b"\n", _START_S)
        if line != b"ready\n":
            self._end()
            raise JudgeUnavailable(f"{sys.executable} -m {_MODULE} ends before it judges a report")
        return process

    def _end(self) -> None:
        with self._changing:
            process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # the process has not read everything
                    stream.close()


def _start() -> subprocess.Popen[bytes]:
    try:
        # Not multiprocessing: it would import the program's main module again, which may start a server.
        process = subprocess.Popen(  # noqa: S603 - of this interpreter and this module
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
    except OSError as error:
        raise JudgeUnavailable(f"{sys.executable} cannot be started to judge reports: {error}") from error
    with contextlib.suppress(OSError, AttributeError):  # it ended at once, or this is Windows
        # Requests come first if there are few processors.
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
    return process


def _answer(process: subprocess.Popen[bytes], line: bytes, seconds: float) -> tuple[bytes, bool]:
    """The answer to a line, empty if none came; and whether it came in time."""
    if process.stdin is None or process.stdout is None:
        raise TypeError("the process has no pipes")
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        process.stdin.write(line)
        process.stdin.flush()
        answer = process.stdout.readline()
    except (OSError, ValueError):  # the pipe is broken, or was closed in the meantime
        answer = b""
    finally:
        timer.cancel()
    return answer if answer.endswith(b"\n") else b"", not late.is_set()
