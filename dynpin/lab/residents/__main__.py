"""``python -m dynpin.lab.residents NAME`` answers tasks, line by line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from dynpin.lab.residents.task import Answer, Task

__all__ = ["main"]

Do = Callable[[Task], Answer]


def _agent(name: str, *arguments: str) -> Do:
    """The agent with this name. Only its own library is imported."""
    if name == "naive":
        from dynpin.lab.residents.naive import Naive  # noqa: PLC0415

        return Naive(*arguments)
    if name in ("chromium", "firefox"):
        from dynpin.lab.residents.models import Model  # noqa: PLC0415

        return Model(name)
    from dynpin.lab.residents.libraries import GETS, Library  # noqa: PLC0415

    return Library(GETS[name])


def main(name: str, *arguments: str) -> None:
    """Answer tasks until there are no more."""
    do = _agent(name, *arguments)
    for line in sys.stdin:
        told = json.loads(line)
        answer = do(Task(**told | {"pins": tuple(told["pins"])}))
        print(json.dumps({"outcome": answer.outcome, "detail": answer.detail}), flush=True)
    close = getattr(do, "close", None)
    if close is not None:
        close()


if __name__ == "__main__":
    main(*sys.argv[1:])
