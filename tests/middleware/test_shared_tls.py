"""`[site] state = "https://…"`: a node verifies the collector, and its ramp does not move if it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from typer.testing import CliRunner

from dynpin.cli.app import app
from dynpin.deploy.agreement import agreement
from dynpin.middleware.collector import collector
from dynpin.middleware.policy import read_inventory
from tests.middleware.collector.conftest import serving
from tests.middleware.conftest import chain_pem
from tests.middleware.test_shared import RAMP, Many, Node

PAST: dict[str, Any] = {"not_before": datetime(2020, 1, 1, tzinfo=UTC), "not_after": datetime(2020, 2, 1, tzinfo=UTC)}
SYSTEM = "the roots of the system are used; name its root, PEM, in the line ca"
OTHER = "other.pem; name its root, PEM, in the line ca"
REFUSED = [
    ("other.test", {}, "ca.pem", "use a name of the certificate"),
    ("127.0.0.1", PAST, "ca.pem", "renew it on the collector, and check that the clock of this machine is right"),
    ("127.0.0.1", {}, "other.pem", OTHER),
    ("127.0.0.1", {}, "", SYSTEM),
]


@pytest.fixture
def many(tmp_path: Path, authority: trustme.CA) -> Iterator[Many]:
    with ExitStack() as stack:
        yield Many(tmp_path, authority, stack)


def over_tls(many: Many, name: str, roots: str, **issue: Any) -> Node:
    """Node a, whose collector is served with a certificate of this name; `roots` is the file in the line ca."""
    many.running.close()
    certificate = many.authority.issue_cert(name, **issue)
    chain, key = many.folder / "collector.pem", many.folder / "collector.key"
    chain.write_bytes(chain_pem(certificate))
    key.write_bytes(certificate.private_key_pem.bytes())
    many.authority.cert_pem.write_to_path(str(many.folder / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(many.folder / "other.pem"))
    app = collector(
        many.folder / "reports.sqlite",
        clock=many.clock,
        tokens=["demo"],
        password="long enough to be one",
        parts=["intake", "web"],
    )
    url = many.stack.enter_context(serving(app, ssl_certfile=chain, ssl_keyfile=key))
    node = many.nodes[0]
    text = node.inventory.read_text().replace(many.collector.url, url)
    ca = f'ca = "{many.folder / roots}"\n' if roots else ""
    node.inventory.write_text(text.replace("[site]\n", f"[site]\n{ca}"))
    node.inventory.with_name("dynpin-site.json").unlink(missing_ok=True)
    return node


def test_a_node_agrees_over_tls_by_the_roots_that_it_names(many: Many) -> None:
    node = over_tls(many, "127.0.0.1", "ca.pem").start()
    node.look()
    assert node.policy.header is not None
    lines, wrong = agreement(read_inventory(node.inventory))
    assert lines == (f"node a: Public-Key-Pins: {node.policy.header}, for 0 seconds; heard 0 seconds ago",)
    assert wrong == ()


@pytest.mark.parametrize(("name", "issue", "roots", "advice"), REFUSED, ids=["name", "expired", "root", "no root"])
def test_a_certificate_that_does_not_verify_says_what_to_do(
    name: str, issue: dict[str, Any], roots: str, advice: str, many: Many, caplog: pytest.LogCaptureFixture
) -> None:
    node = over_tls(many, name, roots, **issue).start()
    node.look()
    assert node.policy.header is None
    assert "its ramp does not move up: the state of bank.test at https://127.0.0.1:" in caplog.text
    _, (wrong,) = agreement(read_inventory(node.inventory))  # as dynpin check says it
    listed = CliRunner().invoke(app, ["nodes", "list", "--inventory", str(node.inventory)])
    assert listed.exit_code == 2
    for told in (caplog.text, wrong, listed.stderr):
        assert "the certificate of https://127.0.0.1:" in told
        assert advice in told


def test_a_certificate_that_expires_moves_no_ramp_up(many: Many) -> None:
    many.nodes[0].describe(max_age="30 days", more=RAMP)
    node = over_tls(many, "127.0.0.1", "ca.pem").start()
    for _ in range(3):
        node.look()
    before = node.policy.header
    assert before is not None
    assert before.report_only
    # The same collector, with a certificate that is verified no more.
    trustme.CA().cert_pem.write_to_path(str(many.folder / "ca.pem"))
    quiet(many, node)
    assert node.policy.header == before
    many.authority.cert_pem.write_to_path(str(many.folder / "ca.pem"))
    quiet(many, node)
    assert node.policy.header is not None
    assert node.policy.header.max_age == 300


def quiet(many: Many, node: Node) -> None:
    """More than an hour without a report, as far as the collector can say."""
    for _ in range(15):
        many.clock.forward(310)
        node.clock.forward(310)
        node.look()
