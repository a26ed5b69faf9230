"""The test doubles that replace all sockets by their own: mocket and httpretty."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import pytest

from .world import HOST

__all__ = ["URL", "by_httpretty", "by_mocket", "by_strict_mocket"]

URL = f"https://{HOST}/replayed"


@contextlib.contextmanager
def by_mocket(world: object, **options: Any) -> Iterator[object]:
    mocket, entry = pytest.importorskip("mocket"), pytest.importorskip("mocket.mockhttp").Entry
    try:
        with mocket.Mocketizer(**options) as double:
            entry.single_register(entry.GET, URL, body="replayed")
            yield double
    finally:
        _extract()


def by_strict_mocket(world: object) -> AbstractContextManager[object]:
    return by_mocket(world, strict_mode=True)


def _extract() -> None:
    """Call mocket 3's end; it leaves pyOpenSSL injected into urllib3, if that is installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("urllib3.contrib.pyopenssl").extract_from_urllib3()


@contextlib.contextmanager
def by_httpretty(world: object) -> Iterator[object]:
    with mock.patch.dict(sys.modules, {"eventlet": None}):  # httpretty patches eventlet if it is installed
        httpretty = pytest.importorskip("httpretty")
    with httpretty.enabled():
        httpretty.register_uri(httpretty.GET, URL, body="replayed")
        yield httpretty
