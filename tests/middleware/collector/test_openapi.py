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
from dynpin.middleware.collector.web.access import Access
from dynpin.middleware.collector.web.api import api_routes
from dynpin.middleware.collector.web.health import Readiness, health_routes
from tests.clock import Clock
from tests.middleware.collector.conftest import Start
from tests.middleware.collector.test_pages import HASH, PASSWORD, fill

# A report is read leniently on purpose: there an odd member is a flag, and no reason to refuse.
SETTINGS = """
[[operations]]
include-path-regex = "^/r/"
parameters = {{ token = "demo" }}
checks.negative_data_rejection.enabled = false

[[operations]]
include-path = "/api/groups/{{key}}/state"
parameters = {{ key = "{group}" }}

# A token of the site alone changes it, and what a pin is, no pattern says: test_sites.py does this by hand.
[[operations]]
include-name = "PUT /api/sites/{{host}}/state"
enabled = false
"""


def test_schemathesis_finds_nothing(site: Start, tmp_path: Path) -> None:
    """Every check that it has, by a real server: what the document permits, and what it does not."""
    many = 10**9
    running = fill(site(limits=Limits(many, many, many), open_access=False, password=HASH))
    group = running.client.get("/api/groups", auth=("any", PASSWORD)).json()["entries"][0]["group"]
    (tmp_path / "schemathesis.toml").write_text(SETTINGS.format(group=group))
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
    assert "Selected: 12/13" in done.stdout, done.stdout
    assert "No issues found" in done.stdout


def test_every_filter_is_described_and_the_mount_is_known(tmp_path: Path) -> None:
    app = collector(tmp_path / "r.sqlite", tokens=["demo"], open_access=True, clock=Clock())
    described = TestClient(Starlette(routes=[Mount("/pins", app)])).get("/pins/api/openapi.json").json()
    assert described["servers"] == [{"url": "/pins"}]
    named = {parameter["name"] for parameter in described["paths"]["/api/groups"]["get"]["parameters"]}
    assert named == {*FIELDS, *(f"{name}!" for name in FIELDS), "since", "until", "limit", "cursor"}
    app.close()


def test_whatever_programs_may_ask_for_is_described(tmp_path: Path) -> None:
    app = collector(tmp_path / "r.sqlite", tokens=["demo"], open_access=True, clock=Clock())
    access = Access(app.service.storage, Clock(), password=None, user_header=None, open_access=True)
    routes = [*api_routes(app.service, access), *health_routes(Readiness(app.service.storage.probe))]
    served = {(route.path, route.method) for route in routes}
    paths = TestClient(app).get("/api/openapi.json").json()["paths"]
    assert all(route.operation for route in routes)
    described = {(path, method) for path, operations in paths.items() for method in operations if path[:3] != "/r/"}
    assert described == served
    app.close()
