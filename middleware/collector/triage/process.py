"""The judging process: it reads questions and writes diagnoses, one line of JSON each.

It uses no file, no network and no storage. If a report takes too long, the parent process ends it.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from .judging import Judge, Question, Settings

__all__ = ["main"]

# Requests for pages and reports come first.
_NICE = 19


def main() -> None:
    """Answer questions until the input ends."""
    # Ctrl-C goes to every process of a terminal. This one ends when its input ends.
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
