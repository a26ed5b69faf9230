"""`dynpin get` and `dynpin pin` as a person runs them: output, exit codes, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from dynpin import Pin, PublicKeyPins
from dynpin.lab.network import TLSServer

HOST = "localhost"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run_dynpin(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dynpin", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
        assert "Traceback" not in done.stderr
        return done

    return run_dynpin


@pytest.fixture
def authorities() -> tuple[trustme.CA, trustme.CA]:
    return trustme.CA(), trustme.CA()


@pytest.fixture
def roots(authorities: tuple[trustme.CA, trustme.CA], tmp_path: Path) -> Path:
    file = tmp_path / "roots.pem"
    file.write_bytes(b"".join(authority.cert_pem.bytes() for authority in authorities))
    return file


def pin_of(certificate: trustme.LeafCert) -> Pin:
    return Pin.from_certificate(certificate.cert_chain_pems[0].bytes())


@pytest.fixture
def site(authorities: tuple[trustme.CA, trustme.CA]) -> Iterator[TLSServer]:
    deployed, backup = (authorities[0].issue_cert(HOST) for _ in range(2))
    header = PublicKeyPins((pin_of(deployed), pin_of(backup)), max_age=3600)
    with TLSServer(deployed, headers=[("Public-Key-Pins", str(header)), ("Public-Key-Pins", "nonsense")]) as server:
        yield server


def test_get_notes_then_enforces_and_tells_the_way_out(
    run: Run, site: TLSServer, authorities: tuple[trustme.CA, trustme.CA], roots: Path, tmp_path: Path
) -> None:
    options = ("--store", tmp_path / "pins", "--ca", roots)
    first = run("get", site.url(HOST), *options)
    assert first.returncode == 0
    assert "noted" in first.stdout

    second = json.loads(run("get", site.url(HOST), *options, "--json").stdout)
    assert (second["ok"], second["outcome"], second["known_host"]["host"]) == (True, "updated", HOST)
    assert set(second["known_host"]["pins"]) & set(second["chain"])

    site.show(authorities[1].issue_cert(HOST))
    before = site.application_bytes
    refused = run("get", site.url(HOST), *options)
    assert refused.returncode == 1
    assert refused.stdout == ""
    command = f"dynpin hosts forget {HOST} --store {tmp_path / 'pins'}"
    assert command in refused.stderr
    as_json = run("get", site.url(HOST), *options, "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["outcome"] == "refused"
    site.wait_idle()
    assert site.application_bytes == before

    # A reader who does what the message says is let in again.
    assert run(*command.split()[1:]).returncode == 0
    assert run("get", site.url(HOST), *options).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("get", "http://localhost/"), "no https URL"),
        (("get", "nonsense"), "no https URL"),
        (("get", "https://localhost:1/"), "localhost port 1 gave no answer: "),
        (("get", "https://localhost:99999/"), "https://localhost:99999/ is no URL: Port out of range 0-65535\n"),
        (("get", "https://[localhost/"), "https://[localhost/ is no URL"),
        (("get", "https://localhost/", "--ca", "missing.pem"), "missing.pem"),
        (("pin", "missing.pem"), "missing.pem: No such file"),
        (("pin",), "Missing argument"),
        (("nonsense",), "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_told_without_a_traceback(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    store = ("--store", tmp_path / "pins") if arguments[0] == "get" else ()
    done = run(*arguments, *store)
    assert done.returncode == 2
    assert message in done.stderr
    assert "[Errno" not in done.stderr


def test_a_certificate_that_is_not_valid_is_told_from_a_wrong_key(
    run: Run, site: TLSServer, authorities: tuple[trustme.CA, trustme.CA], roots: Path, tmp_path: Path
) -> None:
    store = ("--store", tmp_path / "pins")
    unknown = run("get", site.url(HOST), *store)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "shows a certificate that is not valid: unable to get local issuer certificate" in unknown.stderr
    assert "by --ca" in unknown.stderr
    site.show(authorities[0].issue_cert("other.test"))
    other = run("get", site.url(HOST), *store, "--ca", roots)
    assert other.returncode == 2
    assert "shows a certificate that is not valid: Hostname mismatch" in other.stderr
    assert "--ca" not in other.stderr


def test_pin_prints_the_pins_of_files(run: Run, authorities: tuple[trustme.CA, trustme.CA], roots: Path) -> None:
    expected = str(Pin.from_certificate(authorities[0].cert_pem.bytes()))
    assert run("pin", roots).stdout == f"{expected}\n"
    assert json.loads(run("pin", roots, "--json").stdout) == [{"file": str(roots), "pin": expected}]
    both = run("pin", roots, "missing.pem", roots)
    assert both.returncode == 2
    assert both.stdout.splitlines() == [f"{expected}  {roots}"] * 2


def test_version(run: Run) -> None:
    from dynpin import __version__

    assert run("--version").stdout == f"dynpin {__version__}\n"
