"""Make stdin, stdout and stderr safe: they may be closed, full, without a reader, or of another encoding.

This module is imported before the rest of the command, so it imports very little.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["is_cut_off", "open_streams", "unwritten"]

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
# Replacements for characters that another encoding does not have, where a question mark would lose the meaning.
_PLAIN = str.maketrans(
    {
        "§": "section ",
        "…": "...",
        "→": "->",
        "✓": "+",
        "✗": "x",
        "▶": ">",
        "▲": "^",
        "·": ".",
        "│": "|",
        "█": "#",
        "░": ".",
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
    }
)


class _Outlet(io.FileIO):
    """A file descriptor. After the first failed write, all further output is dropped.

    A command that changes or sends something must finish even if its reader, such as `head`, has gone. SIGPIPE would
    end it half done.
    """

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def open_streams() -> None:
    """Replace the three streams, so that reading and printing never raise because of them."""
    codecs.register_error("dynpin", _in_plain_signs)
    for descriptor, (name, mode) in enumerate(_STREAMS):
        stream = getattr(sys, name)
        if stream is None:
            # Closed by the shell (<&- or >&-): otherwise the next open file or socket would get this number.
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
        elif mode == "r" or not isinstance(stream, io.TextIOWrapper):
            continue
        elif stream.isatty():
            # A terminal is never full and has a reader, and on Windows it is not a file.
            stream.reconfigure(errors="dynpin")
        else:
            outlet = io.BufferedWriter(_Outlet(descriptor, "w", closefd=False))
            setattr(
                sys,
                name,
                io.TextIOWrapper(outlet, stream.encoding, "dynpin", line_buffering=stream.line_buffering),
            )


def unwritten() -> OSError | None:
    """Flush the output. The error that stopped it, or None. A reader that has gone is no error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:  # a terminal that is gone
            return error
    failure = _failure()
    return None if isinstance(failure, BrokenPipeError) else failure


def is_cut_off() -> bool:
    """Whether the reader of stdout has gone, such as `head`. Then a long list may end."""
    return _failure() is not None


def _failure() -> OSError | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Outlet) else None


def _in_plain_signs(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "replace").decode("ascii"), error.end
