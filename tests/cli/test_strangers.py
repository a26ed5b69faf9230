"""Text of strangers on its way to the terminal: escapes, controls and turned directions arrive as marks."""

from __future__ import annotations

import json
import socketserver
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from rich.console import RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from dynpin import Pin
from dynpin.cli.consoles import table_console, text_console
from dynpin.cli.printing import printable, say
from dynpin.cli.progress import progress_bar
from dynpin.clientstore import PinStore

from .processes import called

# What makes a terminal do something, or show something else than it was given.
HOSTILE = {
    "a colour": "\x1b[31mred",
    "a title": "\x1b]0;owned\x07",
    "a C1 sequence": "\x9b31mred",
    "the beginning of the line": "fine\rdynpin: all is well",
    "the bell": "\x07",
    "a turned direction": "\u202etset.knab",
    "an isolate": "\u2066x\u2069",
    "erased": "abc\x08\x08\x7f",
    "a new line": "x\ndynpin: all is well",
    "another line": "x\u2028dynpin: all is well",
}
MARK = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_each_character_that_a_terminal_obeys_is_a_mark(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    assert MARK in shown
    say(text)
    assert capsys.readouterr().out.replace("\n", "").isprintable()
    table = Table("host", "name", title=text)
    table.add_row(text, Text(text))
    laid_out: list[RenderableType] = [text, Text(text), table, Padding(text, 1), Rule(text), Rule(Text(text))]
    for console in (table_console(), text_console(40)):
        for each in laid_out:
            console.print(each)
            assert capsys.readouterr().out.replace("\n", "").isprintable()


@pytest.mark.parametrize("text", ["", "straße.test §2.6 … ✓", "日本", "[bold]:warning:"])
def test_all_else_stays_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(text) == text
    say(f"{text}\n  {text}", err=True)
    assert capsys.readouterr() == ("", f"{text}\n  {text}\n")
    for console in (table_console(), text_console(40)):
        console.print(Table(text, box=None, pad_edge=False))
        assert capsys.readouterr().out.rstrip() == text
        console.print(text, style="bold")
        assert capsys.readouterr().out.rstrip() == text


def test_a_bar_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("TERM", "xterm"), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar() as show:
        show("[red]pins[/red] :warning: \x1b[2J", 1, 2)
    assert f"[red]pins[/red] :warning: {MARK}[2J" in capsys.readouterr().err


@contextmanager
def answering(answer: bytes, folder: Path) -> Iterator[tuple[str, Path]]:
    """A TLS server for localhost that answers every request with these bytes: its URL, and its root as a file."""
    authority = trustme.CA(organization_name="\x1b[31mred\u202e")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", common_name="\x1b[31mred\u202e").configure_cert(context)
    roots = folder / "roots.pem"
    roots.write_bytes(authority.cert_pem.bytes())

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)

    class Server(socketserver.ThreadingTCPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that ends early is none of our business."""

    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"https://localhost:{server.server_address[1]}/", roots
        finally:
            server.shutdown()
            thread.join()


ANSWERS = {
    "no status line": "{}\r\n\r\n",
    "a reason": "HTTP/1.1 200 {}\r\nContent-Length: 0\r\n\r\n",
    "a status that is none": "HTTP/1.1 {}\r\n\r\n",
    "a header": "HTTP/1.1 200 OK\r\nPublic-Key-Pins: {}\r\nContent-Length: 0\r\n\r\n",
    "a directive": 'HTTP/1.1 200 OK\r\nPublic-Key-Pins: max-age=3; pin-sha256="{}"\r\nContent-Length: 0\r\n\r\n',
    "a report-uri": 'HTTP/1.1 200 OK\r\nPublic-Key-Pins: max-age=3; report-uri="https://{}/"\r\n'
    "Content-Length: 0\r\n\r\n",
    "another field": "HTTP/1.1 200 OK\r\n{}: x\r\nPublic-Key-Pins: max-age=3\r\nSet-Cookie: a=b; Domain={}\r\n"
    "Content-Length: 0\r\n\r\n",
    "a script": "HTTP/1.1 200 OK\r\nPublic-Key-Pins: max-age=3; includeSubDomains\r\nContent-Type: text/html\r\n"
    "Connection: close\r\n\r\n<script src='https://{}/x.js'></script>",
}


@pytest.mark.parametrize("place", ANSWERS)
def test_check_shows_a_hostile_site_without_obeying_it(place: str, tmp_path: Path) -> None:
    # All in one, since each run takes a while: the escape comes first.
    hostile = "\x1b[31mred\x1b]0;owned\x07\x9b1m\r\u202e\x08\x7f\x00\x85"
    answer = ANSWERS[place].replace("{}", hostile).encode()
    with answering(answer, tmp_path) as (url, roots):
        options = ["--ca", roots, "--address", "127.0.0.1", "--timeout", "60", "--no-probe"]
        for more in ([], ["--json"]):
            done = called("check", url, *options, *more, folder=tmp_path)
            assert done.returncode in (1, 2)
            for stream in (done.stdout, done.stderr):
                assert stream.decode().replace("\n", "").isprintable()
            assert not more or done.returncode == 2 or json.loads(done.stdout)


def test_the_name_of_an_imported_file_is_shown_as_it_can_be(tmp_path: Path) -> None:
    pins = tmp_path / "\x1b[31m\u202e.csv"
    pins.write_text(f"host,pins\nbank.test,{Pin(bytes(32))}\n")
    store = ("--store", tmp_path / "pins")
    for arguments in (["import", pins], ["show", "bank.test"], ["list"], ["show", "other.test"]):
        done = called("hosts", *arguments, *store)
        for stream in (done.stdout, done.stderr):
            assert stream.decode().replace("\n", "").isprintable()
    with PinStore(tmp_path / "pins") as kept:
        assert [entry.host for entry in kept.hosts()] == ["bank.test"]
