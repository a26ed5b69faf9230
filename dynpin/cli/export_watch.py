"""`dynpin export FORMAT --watch FILE`: the include file of a proxy follows dynpin.toml."""

from __future__ import annotations

import logging
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from dynpin.cli.errors import fail, finding
from dynpin.cli.printing import say
from dynpin.deploy.export_watch import IncludeFile, follow
from dynpin.middleware.policy import Policy, read_inventory
from dynpin.middleware.policy.ramp import Driver

__all__ = ["look_once", "watch_file"]


def watch_file(inventory: Path, form: str, file: Path, command: str | None) -> None:
    """Follow an inventory until SIGTERM."""
    with _log_on_stderr():
        policy = Policy.from_inventory(inventory)
        policy.watch()
        say(f"following {inventory}", err=True)
        ended: list[int] = []

        def end(number: int, _: FrameType | None) -> None:
            ended.append(number)

        before = signal.signal(signal.SIGTERM, end)
        try:
            follow(policy, IncludeFile(form, file, command, say), lambda: bool(ended), complain=_complain)
        finally:
            signal.signal(signal.SIGTERM, before)


def look_once(inventory: Path, form: str, file: Path, command: str | None) -> None:
    """Update the file from the inventory; the exit code is 1 if there is no header, or if the reload failed."""
    with _log_on_stderr():
        policy = Policy.from_inventory(inventory)
        site = read_inventory(inventory)
        if site.remember is None and site.state is None:
            fail(
                f"{inventory} has no line remember: without it, each look would pin whatever key is deployed then, "
                'and lock clients out. Add remember = "dynpin-sent.txt"'
            )
        Driver().look_at(policy, "")
        policy.refresh()
        if site.state is not None:
            from dynpin.middleware.policy.shared import agree_now  # noqa: PLC0415 - for those who share a state

            agree_now(policy)
        failure = IncludeFile(form, file, command, say).bring_up_to(policy.header)
        if failure:
            finding(failure)
        if policy.header is None:
            finding(f"no header is sent, and {file} has none; the lines above say why")


def _complain(text: str) -> None:
    say(f"dynpin: {text}", err=True)


class _Said(logging.Handler):
    """Prints the policy's log messages as a command does."""

    def emit(self, record: logging.LogRecord) -> None:
        _complain(record.getMessage())


@contextmanager
def _log_on_stderr() -> Generator[None]:
    logger, handler = logging.getLogger("dynpin.middleware"), _Said(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
