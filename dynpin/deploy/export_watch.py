"""The include file of a proxy: it follows a policy, and the proxy reloads it after a change."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from dynpin.files import read_file
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME, PublicKeyPins
from dynpin.middleware.policy import write_atomically

from .export import export_header, export_map
from .shell import run_line

__all__ = ["IncludeFile", "follow", "include_text"]

# Seconds between two looks at the header. The policy's own thread watches the files.
_EVERY = 0.5
# In seconds: the longest reload; the wait after a failure, which doubles; and the longest wait.
_RELOAD_LIMIT = 60.0
_AGAIN, _AGAIN_AT_MOST = 10.0, 600.0

_USE: Mapping[str, str] = {
    "nginx": "In the server block that speaks TLS:  include {path};",
    "apache": "In the VirtualHost that speaks TLS:  Include {path}",
    "caddy": "In the site block:  import {path}",
    "haproxy": "\n".join(
        [
            "In the frontend that speaks TLS:",
            *(
                f"  http-after-response set-header {name} %[str({name}),map({{path}})] "
                f"if {{{{ ssl_fc }}}} {{{{ str({name}),map({{path}}) -m found }}}}"
                for name in (ENFORCE_NAME, REPORT_ONLY_NAME)
            ),
        ]
    ),
    "traefik": "In the folder of the file provider, which reloads it by itself.",
}


def include_text(form: str, path: Path, header: PublicKeyPins | None) -> str:
    """The content of a proxy's include file; only comments if there is no header.

    Raises:
        ValueError: as :func:`~dynpin.deploy.export.export_header` does.
    """
    use = _USE[form].format(path=path)
    notes = "".join(f"# {line}\n" for line in ["Written by dynpin export --watch: do not edit.", *use.split("\n")])
    if header is None:
        return f"{notes}# There is no header to send: the deployed key is not pinned.\n"
    return notes + (export_map(header) if form == "haproxy" else _without_comments(export_header(form, header)))


def _without_comments(lines: str) -> str:
    return "".join(line for line in lines.splitlines(keepends=True) if not line.startswith("#"))


class IncludeFile:
    """The include file of one proxy, and the command that makes the proxy reload it.

    A file beside it, `.NAME.not-reloaded`, means that the proxy may not have read the newest text. The next process
    runs the command again, even after a crash.

    Args:
        form: the proxy, one of :data:`~dynpin.deploy.export.HEADER_FORMATS`.
        path: the file.
        command: a line for the shell, or None if the proxy watches the file by itself.
        say: called with each change.
        limit: how many seconds the command may take.
    """

    def __init__(
        self, form: str, path: Path, command: str | None, say: Callable[[str], None], limit: float = _RELOAD_LIMIT
    ) -> None:
        self.form, self.path, self.command, self.say, self.limit = form, path.absolute(), command, say, limit
        self._mark = self.path.with_name(f".{self.path.name}.not-reloaded")

    def bring_up_to(self, header: PublicKeyPins | None) -> str:
        """Write the file if it does not have this header, and reload. Returns the failure, or an empty text.

        Raises:
            ValueError: if the proxy's configuration cannot express the header.
        """
        text = include_text(self.form, self.path, header)
        try:
            is_new = self._read() != text
            if is_new:
                if self.command is not None:
                    self._mark.touch()
                # Its content is public, and the proxy's own user must be able to read it.
                write_atomically(self.path, text, 0o644)
        except OSError as error:
            return f"{self.path} cannot be written: {error.strerror or error}"
        failed = None
        if self.command is not None and self._mark.exists():
            failed = run_line(self.command, seconds=self.limit)
            if failed is None:
                self._mark.unlink(missing_ok=True)
        if is_new:
            sent = "no header" if header is None else f"{header.name}: {header}"
            self.say(f"{self.path}: {sent}")
        return "" if failed is None else f"the reload failed ({self.command}): {failed}"

    def _read(self) -> str | None:
        try:
            return read_file(self.path).decode("utf-8")
        except FileNotFoundError:
            return None
        except ValueError:  # not text: the file is about to be replaced
            return ""


class Followed(Protocol):
    """An object with a header that changes by itself: a watched :class:`~dynpin.middleware.Policy`."""

    @property
    def header(self) -> PublicKeyPins | None:
        """The current header."""
        ...


def follow(
    policy: Followed,
    file: IncludeFile,
    is_over: Callable[[], bool],
    *,
    complain: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Keep a file up to date until `is_over` returns True. A failure is reported, and tried again after some time.

    Args:
        policy: has the header.
        file: the include file.
        is_over: called twice a second.
        complain: called with each failure.
        pause: waits for so many seconds.
        clock: returns seconds, from any start.
    """
    waits, due, seen = 0.0, clock(), policy.header
    while not is_over():
        header = policy.header
        if header != seen:
            waits, due, seen = 0.0, clock(), header
        if clock() >= due:
            failure = _attempt(file, header)
            waits = min(max(_AGAIN, 2 * waits), _AGAIN_AT_MOST) if failure else 0.0
            due = clock() + waits
            if failure:
                complain(f"{failure}; tried again in {waits:.0f} seconds")
        pause(_EVERY)


def _attempt(file: IncludeFile, header: PublicKeyPins | None) -> str:
    try:
        return file.bring_up_to(header)
    except ValueError as error:
        return str(error)
