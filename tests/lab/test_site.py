"""`dynpin lab site`: a pinned site and an attacker, as readers of the tutorial use them."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from dynpin import PinValidationError
from dynpin.clientstore import PinStore
from dynpin.clientstore.http_client import PinnedHTTPSConnection
from tests.cli.processes import COMMAND
from tests.deploy.commands import dynpin


@pytest.fixture
def practice(tmp_path: Path) -> Generator[tuple[Path, list[int]]]:
    """The file of roots, and the ports of the site and the attacker."""
    roots = tmp_path / "roots.pem"
    process = subprocess.Popen(
        [*COMMAND, "lab", "site", "--port", "0", "--attacker-port", "0", "--roots", str(roots)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    yield roots, [int(line.partition("localhost:")[2].partition("/")[0]) for line in lines[:2]]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not roots.exists()


def test_the_site_pins_and_the_attacker_is_refused(practice: tuple[Path, list[int]], tmp_path: Path) -> None:
    roots, (site, attacker) = practice
    with PinStore(tmp_path / "pins.sqlite") as store:

        def visit(port: int) -> PinnedHTTPSConnection:
            context = ssl.create_default_context(cafile=roots)
            connection = PinnedHTTPSConnection("localhost", port, store=store, context=context)
            connection.request("GET", "/")
            connection.getresponse().read()
            connection.close()
            return connection

        noting = visit(site).noting
        assert noting is not None
        assert noting.outcome == "noted"
        with pytest.raises(PinValidationError, match="none of its pinned keys"):
            visit(attacker)
        # Without pins the same chain is accepted: so the pin is what refuses it.
        store.forget("localhost")
        visit(attacker)


def test_an_address_is_no_name() -> None:
    result = dynpin("lab", "site", "127.0.0.1")
    assert result.exit_code == 2
    assert "pin only names" in result.stderr


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_text("mine")
    result = dynpin("lab", "site", "--port", "0", "--attacker-port", "0", "--roots", str(roots))
    assert result.exit_code == 2
    assert "roots.pem exists" in result.stderr
    assert roots.read_text() == "mine"


@pytest.mark.parametrize("option", ["--port", "--attacker-port"])
def test_a_port_in_use_is_named(option: str, tmp_path: Path) -> None:
    ports = {"--port": "0", "--attacker-port": "0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports[option] = str(taken.getsockname()[1])
        options = [each for pair in ports.items() for each in pair]
        result = dynpin("lab", "site", *options, "--roots", str(tmp_path / "roots.pem"))
    assert result.exit_code == 2
    assert f"port {ports[option]}" in result.stderr
    assert f"with {option}" in result.stderr
    assert not (tmp_path / "roots.pem").exists()
