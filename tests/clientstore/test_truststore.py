"""truststore, on systems on which OpenSSL verifies: as a given context, and as a replacement of ssl.SSLContext."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from dynpin import PinValidationError
from dynpin.clientstore import ReportQueue, enforce
from tests.environments import ROOT, told_by

from .libraries import LIBRARIES
from .sites import Site
from .world import HOST, World

truststore = pytest.importorskip("truststore")
pytestmark = pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the operating system verifies here")


@pytest.fixture
def roots(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    bundle = world.roots_file()
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    return bundle


@pytest.mark.parametrize("order", ["before", "after"])
def test_injected_into_ssl_before_or_after_dynpin_is_imported(world: World, roots: Path, order: str) -> None:
    urls = (world.site.url(HOST), world.attacker.url(HOST))
    told = told_by(sys.executable, "tests.clientstore.injected_visits", order, *urls)
    refused = f"{HOST} shows none of its pinned keys."
    assert told == {library.name: [[200], [HOST], refused] for library in LIBRARIES}
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


BYPASS = """
import ssl, certifi, truststore
plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
plain.load_verify_locations(cafile=certifi.where())
truststore.inject_into_ssl()
from dynpin.clientstore import PinStore
from dynpin.clientstore.enforcement import Enforcement
with PinStore.private() as store:
    rule = Enforcement(store, private_roots="bypass")
print(rule.public_roots == frozenset(plain.get_ca_certs(binary_form=True)))
"""


def test_the_public_roots_are_known_after_injection() -> None:
    pytest.importorskip("certifi")
    done = subprocess.run(
        [sys.executable, "-c", BYPASS], capture_output=True, text=True, check=False, timeout=300, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_its_reports_are_verified_with_the_systems_roots(world: World, roots: Path, honest: trustme.CA) -> None:
    with Site(honest.issue_cert("report.test")) as collector:
        world.store.pin(HOST, world.header.pins, report_uri=collector.url("report.test"))
        queue = ReportQueue(world.store, context=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT), background=False)
        context = enforce(truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT), world.store, reporter=queue)
        with world.connect(world.attacker) as raw, pytest.raises(PinValidationError):
            context.wrap_socket(raw, server_hostname=HOST)
        assert [delivery.outcome for delivery in queue.send()] == ["sent"]
        assert collector.received.startswith(b"POST /")
