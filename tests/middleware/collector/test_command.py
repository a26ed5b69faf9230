"""`dynpin collect` as a person types it: a real process, signals and all."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from dynpin.cli.collect import app
from tests.middleware.collector.conftest import report
from tests.middleware.collector.test_triage import LEAF, MIDDLE, OTHER_PIN, PINS, reported

COMMAND = [sys.executable, "-c", "from dynpin.cli import main; main()", "collect"]


@contextmanager
def collecting(storage: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Start the command; gives the process and what it printed, by its first word."""
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--storage", str(storage), *options],
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("DYNPIN_")},
    )
    assert process.stderr is not None
    said: dict[str, str] = {}
    for line in process.stderr:
        name, _, value = line.strip().partition("  ")
        said.setdefault(name, value.strip())
        if name == "pages":
            break
    try:
        yield process, said
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
        process.stderr.close()


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_it_serves_with_a_password_of_its_own(tmp_path: Path) -> None:
    with collecting(tmp_path / "r.sqlite", "--token", "demo") as (_, said):
        uri = said["report-uri"]
        assert httpx.post(uri, json=report(), trust_env=False).status_code == 204
        password = said["password"].split()[0]
        groups = said["pages"] + "api/groups"
        assert httpx.get(groups, trust_env=False).status_code == 401
        listed = httpx.get(groups, auth=("me", password), trust_env=False).json()["entries"]
        assert [group["host"] for group in listed] == ["www.example.com"]


@pytest.mark.parametrize("rounds", [3])
def test_sigkill_loses_no_acknowledged_report(tmp_path: Path, rounds: int) -> None:
    """The long form of this is in tests/stress."""
    acknowledged = 0
    for _ in range(rounds):
        with collecting(tmp_path / "r.sqlite", "--token", "demo", "--open-access") as (process, said):
            uri = said["report-uri"]
            with httpx.Client(trust_env=False) as client:
                for _ in range(10):
                    acknowledged += client.post(uri, json=report()).status_code == 204
            process.send_signal(signal.SIGKILL)
            process.wait()
    with collecting(tmp_path / "r.sqlite", "--token", "demo", "--open-access") as (_, said):
        (group,) = httpx.get(said["pages"] + "api/groups", trust_env=False).json()["entries"]
    assert acknowledged == rounds * 10
    assert group["reports"] == acknowledged


def test_an_inventory_names_the_keys_and_old_groups_are_judged_again(tmp_path: Path) -> None:
    (tmp_path / "shop.pem").write_text(LEAF.pem)
    inventory = tmp_path / "dynpin.toml"
    inventory.write_text(f'hosts = ["a.test"]\nkeys = ["shop.pem"]\nbackups = [{{ pin = "{OTHER_PIN}" }}]\n')
    sent = reported([LEAF, MIDDLE], [LEAF], PINS).to_dict()
    for options, named in (((), False), (("--inventory", str(inventory)), True), ((), False)):
        with collecting(tmp_path / "r.sqlite", "--token", "demo", "--open-access", *options) as (_, said):
            if not (tmp_path / "sent").exists():
                assert httpx.post(said["report-uri"], json=sent, trust_env=False).status_code == 204
                (tmp_path / "sent").touch()
            (group,) = httpx.get(said["pages"] + "api/groups", trust_env=False).json()["entries"]
        assert ("shop.pem (deployed)" in json.dumps(group["diagnosis"])) is named
        assert (group["verdict"] == "stale-policy") is named


def test_tokens(tmp_path: Path) -> None:
    file = ("--storage", str(tmp_path / "r.sqlite"))
    token = run("tokens", "add", *file, "--name", "Shop", "--host", "Shop.Example.").strip()
    assert re.fullmatch(r"[\w-]{12}", token)
    listed = json.loads(run("tokens", "list", *file, "--json"))
    assert [(one["token"], one["name"], one["hosts"], one["revoked-at"]) for one in listed] == [
        (token, "Shop", ["shop.example"], None)
    ]
    assert token in run("tokens", "list", *file)
    assert "is revoked" in run("tokens", "revoke", token, *file)
    run("tokens", "revoke", token, *file, code=1)
    assert json.loads(run("tokens", "list", *file, "--json"))[0]["revoked-at"]


def test_prune(tmp_path: Path) -> None:
    file = ("--storage", str(tmp_path / "r.sqlite"))
    run("prune", *file, code=2)
    run("tokens", "add", *file)
    assert json.loads(run("prune", *file, "--json")) == {"reports": 0, "groups": 0, "samples": 0}
    assert "0 reports" in run("prune", *file, "--days", "1")


def test_a_wrong_digest_is_told(tmp_path: Path) -> None:
    assert "daily or weekly" in run("--digest", "hourly", "--storage", str(tmp_path / "r.sqlite"), code=2)
