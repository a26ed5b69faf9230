"""An agent's process, bounded in time and in what it says, and ended with all that is in its process group."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from dynpin.counts import plural

__all__ = ["MOST_OUTPUT", "Child", "Children"]

# Bytes: a process that writes more is ended.
MOST_OUTPUT = 1_000_000
_SAID = 2_000


class Children:
    """The running processes, so that all of them can be ended at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alive: set[Child] = set()
        self._ended = False

    def start(
        self, command: Sequence[str], *, folder: Path, environment: Mapping[str, str], answers: bool = False
    ) -> Child:
        """Start a process in a folder, with this environment and no other.

        Args:
            command: the program and its arguments; no shell is involved.
            folder: its working directory.
            environment: its environment.
            answers: whether it gets questions on standard input and answers on standard output.

        Raises:
            OSError: if there is no such program, or if it cannot run.
            InterruptedError: after :meth:`end`.
        """
        with self._lock:
            if self._ended:
                raise InterruptedError("the run was stopped")
            child = Child(command, folder, environment, answers=answers)
            self._alive.add(child)
        return child

    def reap(self, child: Child) -> None:
        """End a process, and all processes that it left running in its group."""
        child.end()
        with self._lock:
            self._alive.discard(child)

    def end(self) -> None:
        """End every process, and start no more."""
        with self._lock:
            self._ended = True
            alive = list(self._alive)
        for child in alive:
            child.end()


class Child:
    """One process, in a session of its own: Ctrl-C reaches it only through :class:`Children`.

    Attributes:
        problem: why it was ended, in words; empty if it ended by itself.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], *, answers: bool) -> None:
        self.problem = ""
        self._changed = threading.Condition()
        self._output = bytearray()
        self._closed = False
        self._process = subprocess.Popen(  # noqa: S603 - the command that the user gave, without a shell
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE if answers else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - as asked for above
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    @property
    def said(self) -> str:
        """The end of its output, without its answers."""
        with self._changed:
            return self._output[-_SAID:].decode(errors="replace")

    def wait(self, timeout: float) -> int:
        """Wait until it ends, for at most so many seconds. Returns its exit code; negative for a signal."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.problem = self.problem or f"it did not end within {timeout:g} {plural(timeout, 'second')}"
        self.end()
        return self._process.returncode

    def ask(self, line: str, timeout: float) -> str:
        """Write a line, and return the next line that begins with a brace.

        Raises:
            OSError: if it has ended, or does not answer within so many seconds; the message says which.
        """
        with self._changed:
            before = bytes(self._output)  # if it has ended already, this says why
            self._output.clear()
        try:
            assert self._process.stdin is not None  # noqa: S101 - as asked for above
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            self._reader.join(timeout)  # until its output has come to the end
            raise OSError(self._last_words(before)) from error
        end = time.monotonic() + timeout
        with self._changed:
            while (answer := self._answer()) is None:
                if self._closed:
                    raise OSError(self._last_words(before))
                if not self._changed.wait(end - time.monotonic()) and time.monotonic() >= end:
                    raise TimeoutError(f"it did not answer within {timeout:g} {plural(timeout, 'second')}")
        return answer

    def _last_words(self, before: bytes) -> str:
        with self._changed:
            said = (before + self._output)[-_SAID:].decode(errors="replace")
        return self.problem or f"it has ended: {said.strip().rpartition(chr(10))[2][-300:]}"

    def finish(self, timeout: float) -> None:
        """Let it end by itself, since there are no more questions; end it after so many seconds."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self.wait(timeout)

    def end(self) -> None:
        """End it and its group at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, for a zombie
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # Its own children may have left the group and keep the pipe open: do not wait for them.
        self._reader.join(1.0)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _answer(self) -> str | None:
        *lines, _ = self._output.split(b"\n")
        return next((line.decode(errors="replace") for line in lines if line.startswith(b"{")), None)

    def _read(self, output: IO[bytes]) -> None:
        with output:
            while data := os.read(output.fileno(), 65_536):
                with self._changed:
                    self._output += data
                    self._changed.notify_all()
                    too_much = len(self._output) > MOST_OUTPUT
                if too_much:
                    self.problem = f"it wrote more than {MOST_OUTPUT:,} bytes"
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(self._process.pid, signal.SIGKILL)
                    break
        with self._changed:
            self._closed = True
            self._changed.notify_all()
