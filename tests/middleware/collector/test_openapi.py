"""The OpenAPI document is the truth: schemathesis finds no 500, and no answer that it does not describe."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from dynpin.middleware.collector import Limits, collector
from dynpin.middleware.collector.storage import FIELDS
from tests.middleware.collector.conftest import Clock, Start
from tests.middleware.collector.test_pages import HASH, PASSWORD, fill

# A report is read leniently on purpose: there an odd member is a flag, and no reason to refuse.
SETTINGS = """
[[operations]]
include-path-regex = "^/r/"
parameters = { token = "demo" }
checks.negative_data_rejection.enabled = false
"""


def test_schemathesis_finds_nothing(site: Start, tmp_path: Path) -> None:
    """Every check that it has, by a real server: what the document permits, and what it does not."""
    many = 10**9
    running = fill(site(limits=Limits(many, many, many), open_access=False, password=HASH))
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    program = Path(sysconfig.get_path("scripts")) / "schemathesis"
    command = [str(program), "run", f"{running.url}/api/openapi.json"]
    options = ["--auth", f"any:{PASSWORD}", "--max-examples", "30", "--no-color"]
    # The same requests in each run, and no verdict by the clock of a busy machine.
    options += ["--generation-deterministic", "--suppress-health-check", "all", "--request-timeout", "120"]
    done = subprocess.run(
        [*command, *options],
        cwd=tmp_path,
        env={**os.environ, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 selected / 7 total" in done.stdout
    assert "No issues found" in done.stdout


def test_every_filter_is_described_and_the_mount_is_known(tmp_path: Path) -> None:
    app = collector(tmp_path / "r.sqlite", tokens=["demo"], open_access=True, clock=Clock())
    described = TestClient(Starlette(routes=[Mount("/pins", app)])).get("/pins/api/openapi.json").json()
    assert described["servers"] == [{"url": "/pins"}]
    named = {parameter["name"] for parameter in described["paths"]["/api/groups"]["get"]["parameters"]}
    assert named == {*FIELDS, *(f"{name}!" for name in FIELDS), "since", "until", "limit", "cursor"}
    app.close()
