"""The process that judges: questions come in, one line of JSON each, and diagnoses go out.

It has no file, no network and no storage. Whoever started it ends it when a report takes too long.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from .judging import Judge, Question, Settings

__all__ = ["main"]

# Whoever waits for a page or sends a report comes first.
_NICE = 19


def main() -> None:
    """Answer until the input ends."""
    # Ctrl-C goes to every process of a terminal; this one ends when its input does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(_NICE)
    lines, answers = sys.stdin.buffer, sys.stdout.buffer
    judge = Judge(Settings(*json.loads(lines.readline())))
    answers.write(b"ready\n")
    answers.flush()
    for line in lines:
        answers.write(judge.judge(Question(*json.loads(line))).model_dump_json().encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
