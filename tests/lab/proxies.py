"""A proxy as a process of its own, and programs that use it."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Self

import h2.connection
import h2.events

from dynpin import Pin
from tests.chromium import Chromium, chromium
from tests.environments import ROOT

__all__ = ["Answer", "HTTP1Client", "HTTP2Client", "RunningProxy", "browser", "command", "curl", "tunnel"]

_TIMEOUT = 300.0
_PORT = re.compile(r"(?:http://|listening at )\S*?:(\d+)")


def command(bin_folder: Path, folder: Path, *options: str) -> list[str]:
    """`dynpin lab proxy` with a store, an authority and trusted roots in a folder."""
    return [
        *(str(bin_folder / "dynpin"), "lab", "proxy", "--listen", "127.0.0.1:0"),
        *("--store", str(folder / "pins"), "--ca-dir", str(folder / "authority")),
        *("--upstream-ca", str(folder / "roots.pem"), *options),
    ]


class RunningProxy:
    """A running proxy: its `port`, its `authority`, and its output, line by line."""

    def __init__(self, arguments: Sequence[str], authority_folder: Path) -> None:
        self.authority = authority_folder / "mitmproxy-ca-cert.pem"
        self.printed: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.port = int(self.wait_for(_PORT)[1])
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """The next line of output that matches the pattern."""
        while True:
            line = self._lines.get(timeout=_TIMEOUT)
            assert line is not None, f"the proxy ended after {''.join(self.printed)}"
            if found := re.search(pattern, line):
                return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end. Returns the exit code."""
        self._process.send_signal(number)
        code = self._process.wait(_TIMEOUT)
        self._reader.join(_TIMEOUT)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            self.stop()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.printed.append(line)
            self._lines.put(line)
        self._lines.put(None)


@dataclass(frozen=True)
class Answer:
    """The answer that a program behind the proxy got."""

    status: int
    headers: dict[str, str]
    body: str


def curl(proxy: RunningProxy, url: str, *options: str) -> Answer:
    """Request a URL with curl, which trusts the proxy's authority."""
    done = subprocess.run(
        [
            *("curl", "--silent", "--show-error", "--include", "--suppress-connect-headers", "--max-time", "120"),
            *("--noproxy", "", "--proxy", proxy.url, "--cacert", str(proxy.authority), *options, url),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT,
    )
    assert done.returncode == 0, done.stderr + "".join(proxy.printed)
    return _answer(done.stdout.replace("\r\n", "\n"))


def browser(proxy: RunningProxy, profile: Path) -> AbstractContextManager[Chromium]:
    """A headless Chromium behind the proxy, which trusts its authority."""
    spki = Pin.from_file(proxy.authority)
    return chromium(profile, f"--proxy-server={proxy.url}", f"--ignore-certificate-errors-spki-list={spki}")


def tunnel(
    proxy: RunningProxy, address: tuple[str, int], server_name: str | None = None, alpn: str = "http/1.1"
) -> ssl.SSLSocket:
    """TLS with the proxy inside a CONNECT tunnel, with any name."""
    raw = socket.create_connection(("127.0.0.1", proxy.port), timeout=120)
    try:
        target = f"{address[0]}:{address[1]}"
        raw.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = raw.recv(4096)
            assert data, f"the proxy ended the tunnel after {head!r}"
            head += data
        assert head.startswith(b"HTTP/1.1 200"), head
        context = ssl.create_default_context(cafile=proxy.authority)
        context.set_alpn_protocols([alpn])
        return context.wrap_socket(raw, server_hostname=server_name or address[0])
    except BaseException:
        raw.close()
        raise


class HTTP1Client:
    """Sends several requests on one connection."""

    alpn = "http/1.1"

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection

    def ask(self, host: str) -> tuple[int, str]:
        """The status and the body of the answer to a GET."""
        self._connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        with HTTPResponse(self._connection) as response:
            response.begin()
            return response.status, response.read().decode()

    def ended(self) -> bool:
        """Whether the other side ends the connection now, after any data."""
        try:
            while self._connection.recv(65_536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()


class HTTP2Client(HTTP1Client):
    """The same with HTTP/2, on one connection for all requests."""

    alpn = "h2"

    def __init__(self, connection: ssl.SSLSocket) -> None:
        super().__init__(connection)
        assert connection.selected_alpn_protocol() == self.alpn
        self._http = h2.connection.H2Connection()
        self._http.initiate_connection()

    def ask(self, host: str) -> tuple[int, str]:
        """See HTTP1Client."""
        stream = self._http.get_next_available_stream_id()
        fields = {":method": "GET", ":scheme": "https", ":authority": host, ":path": "/"}
        self._http.send_headers(stream, list(fields.items()), end_stream=True)
        status, body = 0, b""
        while True:
            self._connection.sendall(self._http.data_to_send())
            for event in self._http.receive_data(self._connection.recv(65_536)):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    return status, body.decode()


def _answer(text: str) -> Answer:
    head, _, body = text.partition("\n\n")
    first, *fields = head.splitlines()
    pairs = (field.partition(":") for field in fields)
    return Answer(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, body)
