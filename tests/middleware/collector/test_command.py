"""`dynpin collect` as a person types it: a real process, signals and all."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from dynpin.cli.app import app
from dynpin.middleware.collector import Alerts, Token, open_storage
from dynpin.middleware.collector.storage import Triaged
from dynpin.middleware.collector.worker import Channel
from tests.middleware.collector.chains import Issued
from tests.middleware.collector.conftest import Inbox, report
from tests.middleware.collector.storage.conftest import arrival
from tests.middleware.collector.test_triage import LEAF, MIDDLE, OTHER_PIN, PINS, ROOT, reported
from tests.programs import end

COMMAND = [sys.executable, "-c", "from dynpin.cli import main; main()", "collect"]


@contextmanager
def collecting(storage: Path | str, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
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
        if name == ("storage" if "--part" in options and "web" not in options else "pages"):
            break
    try:
        yield process, said
    finally:
        end(process)
        process.stderr.close()


@pytest.mark.parametrize(
    ("parts", "told"), [(["intake"], {"report-uri"}), (["web"], {"pages", "password"}), (["worker"], set[str]())]
)
def test_what_a_process_does_not_do_is_not_told(tmp_path: Path, parts: list[str], told: set[str]) -> None:
    options = [word for part in parts for word in ("--part", part)]
    with collecting(tmp_path / "reports.sqlite", *options) as (_, said):
        assert said.keys() == {"listening", "storage", *told}


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["collect", *arguments])
    assert result.exit_code == code, result.output
    return result.output if code else result.stdout


def test_it_serves_with_a_password_of_its_own(tmp_path: Path) -> None:
    with collecting(tmp_path / "r.sqlite", "--token", "demo") as (_, said):
        uri = said["report-uri"]
        assert httpx.post(uri, json=report(), trust_env=False, timeout=120).status_code == 204
        password = said["password"].split()[0]
        groups = said["pages"] + "api/groups"
        assert httpx.get(groups, trust_env=False, timeout=120).status_code == 401
        listed = httpx.get(groups, auth=("me", password), trust_env=False, timeout=120).json()["entries"]
        assert [group["host"] for group in listed] == ["www.example.com"]


@pytest.mark.parametrize("rounds", [3])
def test_sigkill_loses_no_acknowledged_report(tmp_path: Path, rounds: int) -> None:
    """The long form of this is in tests/stress."""
    acknowledged = 0
    for _ in range(rounds):
        with collecting(tmp_path / "r.sqlite", "--token", "demo", "--open-access") as (process, said):
            uri = said["report-uri"]
            with httpx.Client(trust_env=False, timeout=120) as client:
                for _ in range(10):
                    acknowledged += client.post(uri, json=report()).status_code == 204
            process.send_signal(signal.SIGKILL)
            process.wait()
    with collecting(tmp_path / "r.sqlite", "--token", "demo", "--open-access") as (_, said):
        (group,) = httpx.get(said["pages"] + "api/groups", trust_env=False, timeout=120).json()["entries"]
    assert acknowledged == rounds * 10
    assert group["reports"] == acknowledged


def test_an_inventory_names_the_keys_and_roots_and_old_groups_are_judged_again(tmp_path: Path) -> None:
    (tmp_path / "shop.pem").write_text(LEAF.pem)
    (tmp_path / "own-ca.pem").write_text(MIDDLE.pem)
    inventory = tmp_path / "dynpin.toml"
    inventory.write_text(
        f'hosts = ["a.test"]\nkeys = ["shop.pem"]\nbackups = [{{ pin = "{OTHER_PIN}" }}]\nroots = ["own-ca.pem"]\n'
    )
    sent = reported([LEAF, MIDDLE], [LEAF], PINS).to_dict()
    of_other = ("--inventory", f"dmeo={inventory}")
    for options, named in (((), False), (("--inventory", str(inventory)), True), (of_other, False)):
        with collecting(tmp_path / "r.sqlite", "--token", "demo", "--open-access", *options) as (_, said):
            if not (tmp_path / "sent").exists():
                assert httpx.post(said["report-uri"], json=sent, trust_env=False, timeout=120).status_code == 204
                (tmp_path / "sent").touch()
            with httpx.Client(trust_env=False, timeout=120) as client:
                # The worker judges meanwhile; the bound is far beyond what that takes.
                for _ in range(20_000):
                    (group,) = client.get(said["pages"] + "api/groups").json()["entries"]
                    if group["verdict"] and ("shop.pem (deployed)" in json.dumps(group["diagnosis"])) is named:
                        break
        assert (group["verdict"] == "stale-policy") is named
        # A CA is the operator's for all policies, a key for its own.
        assert group["diagnosis"]["root"] == ("own" if options else "unknown")
        assert ("no policy has the token dmeo" in said.get("inventory", "")) is (options == of_other)


def test_tokens(tmp_path: Path) -> None:
    file = ("--storage", str(tmp_path / "r.sqlite"))
    token = run("tokens", "add", *file, "--name", "Shop", "--host", "Shop.Example.").strip()
    assert re.fullmatch(r"[A-Za-z0-9]{12}", token)
    listed = json.loads(run("tokens", "list", *file, "--json"))
    assert [(one["token"], one["name"], one["hosts"], one["revoked_at"]) for one in listed] == [
        (token, "Shop", ["shop.example"], None)
    ]
    assert token in run("tokens", "list", *file)
    assert "is revoked" in run("tokens", "revoke", token, *file)
    run("tokens", "revoke", token, *file, code=1)
    assert json.loads(run("tokens", "list", *file, "--json"))[0]["revoked_at"]


def test_a_token_that_begins_with_a_hyphen_is_revoked_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "r.sqlite"
    for token in ("-pV43LG9CMDQ", "--V43LG9CMDQ"):
        kept = open_storage(file)
        kept.add_token(Token(token, "", (), 0.0))
        kept.close()
        assert f"{token} is revoked" in run("tokens", "revoke", token, "--storage", str(file))
    run("tokens", "revoke", "x", "--storagee", str(file), code=2)


def test_status_tells_what_is_wrong(tmp_path: Path) -> None:
    file = ("--storage", str(tmp_path / "r.sqlite"))
    run("status", *file, code=2)
    storage = open_storage(tmp_path / "r.sqlite")
    assert json.loads(run("status", *file, "--json")) == {
        "fault": None,
        "accepted_this_hour": {},
        "groups_not_judged": 0,
        "failing_channels": {},
        "clock_jump": None,
    }

    def refuse(subject: str, text: str) -> None:
        raise OSError("https://chat.test/secret")

    storage.add([arrival()], {})
    (group, _, _), *_ = storage.untriaged(1)
    storage.set_verdicts([(group, Triaged("undecided", "unclear", "CA", "{}", (), "keys"))])
    assert not Alerts([Channel("alert channel 1 (slack://…)", refuse)]).tell(storage, 1_800_000_000)
    told = run("status", *file, code=1)
    assert "reports can be stored" in told
    assert "alert channel 1 (slack://…) has taken no message since 2027-01-15T08:00:00Z" in told
    assert "secret" not in told
    storage.close()


def test_prune(tmp_path: Path) -> None:
    file = ("--storage", str(tmp_path / "r.sqlite"))
    run("prune", *file, code=2)
    run("tokens", "add", *file)
    assert json.loads(run("prune", *file, "--json")) == {"reports": 0, "groups": 0}
    assert "0 reports" in run("prune", *file, "--days", "1")
    run("prune", *file, "--days", "inf", code=2)


def test_a_clock_that_jumped_is_told_and_accepted(tmp_path: Path) -> None:
    file = ("--storage", str(tmp_path / "r.sqlite"))
    storage = open_storage(tmp_path / "r.sqlite")
    storage.set_fact("pruned_at", time.time() - 400 * 86_400)
    storage.close()
    assert "400 days ahead" in run("prune", *file, code=1)
    assert "400 days ahead" in run("status", *file, code=1)
    run("prune", *file, "--accept-clock")
    assert "days ahead" not in run("status", *file)


def test_a_wrong_digest_is_told(tmp_path: Path) -> None:
    assert "daily or weekly" in run("--digest", "hourly", "--storage", str(tmp_path / "r.sqlite"), code=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tls-certificate", "cert.pem"), "only cert.pem (name its key with --tls-key)"),
        (("--tls-certificate", "cert.pem", "--tls-key", "other.pem"), "other.pem is not the private key of"),
        (("--tls-certificate", "gone.pem", "--tls-key", "key.pem"), "gone.pem: No such file"),
        (("--tls-key", "key.pem"), "key.pem needs --tls-certificate"),
        (("--digest", "daily"), "--digest has no channel: name one with --alert"),
        (("--host", "203.0.113.7"), "cannot listen on 203.0.113.7 port 8080: "),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path)
    (tmp_path / "other.pem").write_bytes(private_pem(MIDDLE))
    told = run(*options, code=2)
    assert said in " ".join(told.split())
    assert "report-uri" not in told


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ("uvicorn", [], "the collector needs uvicorn. "),
        ("argon2", [], "the collector needs argon2. "),
        ("apprise", ["--alert", "json://127.0.0.1:9"], "alerts need apprise. "),
    ],
)
def test_without_a_library_it_says_what_to_install(
    module: str, options: list[str], message: str, tmp_path: Path
) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from dynpin.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "collect", "--port", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    extra = "alerts" if module == "apprise" else "collector"
    assert f"Install dynpin again with its extra, from your clone:  pip install '.[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        told = run("--port", port, "--storage", str(tmp_path / "r.sqlite"), code=2)
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use; name others with --host" in told
    told = run("--host", "pïns..example", "--port", "0", code=2)
    assert "cannot listen on pïns..example port 0: encoding of hostname failed; name others with --host" in told


def test_it_serves_https(tmp_path: Path) -> None:
    write_pair(tmp_path)
    tls = ("--tls-certificate", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with collecting(tmp_path / "r.sqlite", "--token", "demo", "--open-access", *tls) as (_, said):
        assert said["report-uri"].startswith("https://")
        trusted = ssl.create_default_context(cadata=ROOT.pem)
        address = httpx.URL(said["report-uri"])
        with httpx.Client(verify=trusted, trust_env=False, timeout=120) as client:
            sent = client.post(address, json=report(), extensions={"sni_hostname": "api.test"})
    assert sent.status_code == 204


def write_pair(folder: Path) -> None:
    leaf = ROOT.issue("api.test", days=30_000)
    (folder / "cert.pem").write_text(leaf.pem)
    (folder / "key.pem").write_bytes(private_pem(leaf))


def private_pem(issued: Issued) -> bytes:
    return issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_an_alert_leads_to_the_group(tmp_path: Path, hook: Inbox) -> None:
    options = ("--alert", f"json://{hook.address}/?cto=60&rto=60", "--public-url", "https://pins.example/")
    with collecting(tmp_path / "r.sqlite", "--token", "demo", "--open-access", *options) as (_, said):
        assert said["report-uri"] == "https://pins.example/r/demo/enforce"
        with httpx.Client(base_url=said["listening"], trust_env=False, timeout=120) as client:
            assert client.post("/r/demo/enforce", json=report()).status_code == 204
            told = hook.next()
            (group,) = client.get("/api/groups").json()["entries"]
    assert told["title"] == "dynpin: 1 new group"
    assert told["message"].endswith(f"https://pins.example/groups/{group['group']}")
