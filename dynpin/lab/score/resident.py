"""Agents that come along and stay: ``python -m dynpin.lab.score.resident NAME`` reads tasks and answers, line by line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping

from dynpin.lab.score.agent import Answer, Task

__all__ = ["main"]

Do = Callable[[Task], Answer]


def _httpx() -> Do:
    from dynpin.lab.score.libraries import Library, httpx  # noqa: PLC0415 - each agent imports its own library alone

    return Library(httpx)


def _requests() -> Do:
    from dynpin.lab.score.libraries import Library, requests  # noqa: PLC0415

    return Library(requests)


def _urllib3() -> Do:
    from dynpin.lab.score.libraries import Library, urllib3  # noqa: PLC0415

    return Library(urllib3)


def _aiohttp() -> Do:
    from dynpin.lab.score.libraries import Library, aiohttp  # noqa: PLC0415

    return Library(aiohttp)


def _http_client() -> Do:
    from dynpin.lab.score.libraries import Library, http_client  # noqa: PLC0415

    return Library(http_client)


def _chromium() -> Do:
    from dynpin.lab.score.models import Model  # noqa: PLC0415

    return Model("chromium")


def _firefox() -> Do:
    from dynpin.lab.score.models import Model  # noqa: PLC0415

    return Model("firefox")


def _naive(*faults: str) -> Do:
    from dynpin.lab.score.naive import Naive  # noqa: PLC0415

    return Naive(*faults)


AGENTS: Mapping[str, Callable[..., Do]] = {
    "httpx": _httpx,
    "requests": _requests,
    "urllib3": _urllib3,
    "aiohttp": _aiohttp,
    "http.client": _http_client,
    "chromium": _chromium,
    "firefox": _firefox,
    "naive": _naive,
}


def main(name: str, *arguments: str) -> None:
    """Answer tasks until there are no more."""
    do = AGENTS[name](*arguments)
    for line in sys.stdin:
        told = json.loads(line)
        answer = do(Task(**told | {"pins": tuple(told["pins"])}))
        print(json.dumps({"outcome": answer.outcome, "detail": answer.detail}), flush=True)
    close = getattr(do, "close", None)
    if close is not None:
        close()


if __name__ == "__main__":
    main(*sys.argv[1:])
