"""A headless Chromium, driven over its own debugging pipe: no driver and no library between."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.programs import end

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_AXE = Path(__file__).parent / "middleware" / "collector" / "node_modules" / "axe-core" / "axe.min.js"

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
needs_axe = pytest.mark.skipif(
    not _AXE.exists(), reason="axe-core is not installed: npm install --prefix tests/middleware/collector"
)

# What a browser asks for by itself, once for each site and whenever it comes to it: no page has to do with it.
_ICON = "/favicon.ico"
# A browser that hangs is to fail a test, and not to hold the suite for ever.
_PATIENCE = 300
_FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe --disable-dev-shm-usage
""".split()  # noqa: SIM905 - read as a command line


class Chromium:
    """One tab."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to = to_browser
        self._from = from_browser
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Page.setLifecycleEventsEnabled", enabled=True)
        self._loader = str(self.ask("Page.getFrameTree")["frameTree"]["frame"]["loaderId"])

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def faults(self) -> list[Any]:
        """What axe finds wrong with the page: of each fault its name, how bad it is, and the first places."""
        self.run(_AXE.read_text() + "; 0")
        found = json.loads(self.run("axe.run().then(r => JSON.stringify(r.violations))"))
        return [(one["id"], one["impact"], [node["html"] for node in one["nodes"]][:3]) for one in found]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._from], [], [], _PATIENCE)[0], "Chromium is silent"
            part = os.read(self._from, 1 << 20)
            assert part, "Chromium went away"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _wait_for_another_page(self) -> None:
        """Until a page is whole that is not the one before: that one's own end may be told late, on a busy machine."""
        read = 0
        while True:
            for event in self._events[read:]:
                told = event.get("params", {})
                if (event.get("method"), told.get("name")) == ("Page.lifecycleEvent", "load") and (
                    told["loaderId"] != self._loader
                ):
                    self._loader = told["loaderId"]
                    return
            read = len(self._events)
            self._events.append(self._next())

    def visit(self, url: str) -> None:
        """Go there, and wait until the page is whole."""
        self._events.clear()
        self.ask("Page.navigate", url=url)
        self._wait_for_another_page()

    def run(self, script: str) -> Any:
        """The value of an expression in the page; the debugger may where the page's policy forbids scripts."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Click what leads to another page, and wait for that."""
        self._events.clear()
        self.run(f"document.querySelector({json.dumps(selector)}).click()")
        self._wait_for_another_page()

    def fill(self, selector: str, value: str) -> None:
        """Type into a field, or choose of a list."""
        self.run(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(value)}")

    def text(self) -> str:
        """What the page shows."""
        return str(self.run("document.body.innerText"))

    def complaints(self) -> list[str]:
        """What the browser logged since the last visit: violations of the policy, errors, requests that failed."""
        self.run("1")
        return [
            str(event["params"])
            for event in self._events
            if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Page.javascriptDialogOpening")
            and not str(event["params"].get("entry", {}).get("url", "")).endswith(_ICON)
        ]

    def requests(self) -> list[str]:
        """The URLs that the page asked for since the last visit; that of the page itself is none of them."""
        self.run("1")
        asked = [event["params"] for event in self._events if event.get("method") == "Network.requestWillBeSent"]
        urls: list[str] = [each["request"]["url"] for each in asked if each["requestId"] != each["loaderId"]]
        return [url for url in urls if not url.endswith(_ICON)]

    def look(self, *, width: int = 1280, scheme: str = "light") -> None:
        """The size of the window, and the colours that the reader prefers."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, file: Path) -> None:
        """The whole page as PNG."""
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))


@contextmanager
def chromium(profile: Path, *options: str) -> Iterator[Chromium]:
    """A browser with a fresh profile, and with more options of the command line."""
    assert CHROMIUM is not None
    from_us, to_browser = os.pipe()
    from_browser, to_us = os.pipe()

    # Chromium reads descriptor 3 and writes descriptor 4.
    process = subprocess.Popen(
        [
            *("bash", "-c", f'exec "$0" "$@" 3<&{from_us} 4>&{to_us}', CHROMIUM, *_FLAGS),
            *(f"--user-data-dir={profile}", *options),
        ],
        pass_fds=(from_us, to_us),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(from_us)
    os.close(to_us)
    try:
        yield Chromium(to_browser, from_browser)
    finally:
        end(process)
        os.close(to_browser)
        os.close(from_browser)
