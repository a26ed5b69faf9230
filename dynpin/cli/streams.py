"""stdin, stdout and stderr as a shell may hand them over: closed, full, without a reader, or of another encoding.

It is imported before anything else of the command, so it imports next to nothing.
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
# What a stream of another encoding gets in place of the signs whose meaning would be lost with a question mark.
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
    """A descriptor that is written to until that fails; what follows is dropped.

    A command that has begun to forget, record or send something goes on and ends as it would have, also where
    `head` has read enough. Death by SIGPIPE would leave it half done.
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
    """Make the three streams such that reading and printing never fail because of them."""
    codecs.register_error("dynpin", _in_plain_signs)
    for descriptor, (name, mode) in enumerate(_STREAMS):
        stream = getattr(sys, name)
        if stream is None:
            # Closed by the shell (<&- or >&-): without this the next file or socket that is opened gets its number.
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
        elif mode == "r" or not isinstance(stream, io.TextIOWrapper):
            continue
        elif stream.isatty():
            # A terminal is neither full nor without a reader, and on Windows it is not a file.
            stream.reconfigure(errors="dynpin")
        else:
            outlet = io.BufferedWriter(_Outlet(descriptor, "w", closefd=False))
            setattr(
                sys,
                name,
                io.TextIOWrapper(outlet, stream.encoding, "dynpin", line_buffering=stream.line_buffering),
            )


def unwritten() -> OSError | None:
    """Flush; what kept the results from being written, if anything did. A reader that went away is not a fault."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:  # a terminal that is gone
            return error
    failure = _failure()
    return None if isinstance(failure, BrokenPipeError) else failure


def is_cut_off() -> bool:
    """Whether what is printed to stdout reaches nobody any more, as behind `head`: a long list may end there."""
    return _failure() is not None


def _failure() -> OSError | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Outlet) else None


def _in_plain_signs(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "replace").decode("ascii"), error.end
