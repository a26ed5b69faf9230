"""The include file of a proxy: it follows a policy, and the proxy reads it again when it has changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME, PublicKeyPins
from dynpin.middleware.policy import write_atomically

from .export import export_header, export_map
from .shell import run_line

__all__ = ["IncludeFile", "follow", "include_text"]

# Seconds between two looks at the header, for which the policy's own thread looks at the files.
_EVERY = 0.5
# Seconds: the most that a reload may take, and from a failure to the next attempt, which doubles up to the second.
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
    "traefik": "In the folder of the file provider, which reads it again by itself.",
}


def include_text(form: str, path: Path, header: PublicKeyPins | None) -> str:
    """What the include file of a proxy holds; without a header, only comments.

    Raises:
        ValueError: as of :func:`~dynpin.deploy.export.export_header`.
    """
    use = _USE[form].format(path=path)
    notes = "".join(f"# {line}\n" for line in ["Written by dynpin export --watch: do not edit.", *use.split("\n")])
    if header is None:
        return f"{notes}# There is no header to send: the deployed key is not pinned.\n"
    return notes + (export_map(header) if form == "haproxy" else _without_comments(export_header(form, header)))


def _without_comments(lines: str) -> str:
    return "".join(line for line in lines.splitlines(keepends=True) if not line.startswith("#"))


class IncludeFile:
    """The include file of one proxy, and the command that has the proxy read it again.

    A file beside it, `.NAME.not-reloaded`, says that the proxy may not have read the newest text: whoever comes next,
    after a crash too, runs the command again.

    Args:
        form: the proxy, one of :data:`~dynpin.deploy.export.HEADER_FORMATS`.
        path: the file.
        command: a line for the shell, or None where the proxy looks at the file by itself.
        say: is told of each change.
        limit: seconds that the command may take.
    """

    def __init__(
        self, form: str, path: Path, command: str | None, say: Callable[[str], None], limit: float = _RELOAD_LIMIT
    ) -> None:
        self.form, self.path, self.command, self.say, self.limit = form, path.absolute(), command, say, limit
        self._mark = self.path.with_name(f".{self.path.name}.not-reloaded")

    def bring_up_to(self, header: PublicKeyPins | None) -> str:
        """Write the file where it does not hold this header, and reload; why that failed, or an empty text.

        Raises:
            ValueError: where the proxy's configuration cannot hold the header.
        """
        text = include_text(self.form, self.path, header)
        try:
            is_new = self._read() != text
            if is_new:
                if self.command is not None:
                    self._mark.touch()
                # It says what every visitor is told, and the proxy's own user reads it.
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
            return self.path.read_text("utf-8")
        except FileNotFoundError:
            return None
        except ValueError:  # something else, which is about to be replaced
            return ""


class Followed(Protocol):
    """What has a header that changes by itself: a :class:`~dynpin.middleware.Policy` that is watched."""

    @property
    def header(self) -> PublicKeyPins | None:
        """The header to send now."""
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
    """Keep a file up to date until `is_over` says so. What fails is told, and tried again after some time.

    Args:
        policy: has the header.
        file: the include file.
        is_over: asked twice a second.
        complain: is told what failed.
        pause: waits for so many seconds.
        clock: seconds, from anywhere.
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
