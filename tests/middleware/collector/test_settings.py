"""The settings of `dynpin collect`, from flags, environment and file; and what its command line refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from typer.testing import CliRunner

from dynpin.cli.app import app
from dynpin.cli.collect_settings import FLAGS, PREFIX, Settings, read_settings
from dynpin.errors import PolicyError
from dynpin.middleware.collector import Retention, open_storage
from tests.middleware.collector.test_command import collecting, run, write_pair
from tests.middleware.collector.test_triage import LEAF, ROOT


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(f"{PREFIX}CONFIG", raising=False)


def settings(**flags: object) -> dict[str, dict[str, object]]:
    """What ``dynpin collect … config --json`` prints."""
    typed = [text for name, value in flags.items() for text in (FLAGS[name], str(value))]
    found: dict[str, dict[str, object]] = json.loads(run(*typed, "config", "--json"))
    return found


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings()["port"] == {"value": 8080, "from": "default"}
    (tmp_path / "collector.toml").write_text("port = 1\n")
    assert settings()["port"] == {"value": 1, "from": "collector.toml"}
    monkeypatch.setenv("DYNPIN_COLLECTOR_PORT", "2")
    assert settings()["port"] == {"value": 2, "from": "DYNPIN_COLLECTOR_PORT"}
    assert settings(port=3)["port"] == {"value": 3, "from": "--port"}


def each(value: object) -> list[str]:
    return [str(one) for one in (cast("list[object]", value) if isinstance(value, list) else [value])]


def test_each_setting_may_stand_in_each_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, object] = {
        "host": "::1", "port": 9, "storage": "x.sqlite", "parts": ["web"], "tokens": ["a", "b"], "password": "secret",
        "user_header": "X-User", "trusted_proxies": ["10.0.0.0/8", "unix"], "open_access": True,
        "public_url": "https://pins.example", "keys": ["a.pem"], "inventories": ["t=b.toml", "c.toml"],
        "roots": "r.pem", "alerts": ["json://secret@x"], "digest": "weekly", "keep_days": 3.5, "keep_megabytes": 4,
        "source_address": "whole", "limit_source": 6, "limit_token": 7, "limit_all": 8,
        "connections": 9, "connections_source": 10, "head_seconds": 1.5, "body_seconds": 2.5,
        "tls_certificate": "c.pem", "tls_key": "k.pem",
    }  # fmt: skip
    assert values.keys() == Settings.model_fields.keys()
    shown = values | {"password": "(set)", "alerts": ["json://…"]}
    (tmp_path / "collector.toml").write_text(
        "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    )
    assert {name: entry["value"] for name, entry in settings().items()} == shown
    (tmp_path / "collector.toml").unlink()
    for name, value in values.items():
        text = " ".join(each(cast("object", value))) if isinstance(value, list) else json.dumps(value).strip('"')
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", text)
    found = settings()
    assert {name: entry["value"] for name, entry in found.items()} == shown
    assert {name: entry["from"] for name, entry in found.items()} == {n: f"{PREFIX}{n.upper()}" for n in values}
    for name in values:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}")
    typed: list[str] = []
    for name, value in values.items():
        typed += [FLAGS[name]] if value is True else [text for one in each(value) for text in (FLAGS[name], one)]
    found = json.loads(run(*typed, "config", "--json"))
    assert {name: entry["value"] for name, entry in found.items()} == shown
    assert {name: entry["from"] for name, entry in found.items()} == {name: FLAGS[name] for name in values}


def test_paths_in_the_file_count_from_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "c.toml").write_text(
        'storage = "r.sqlite"\nkeys = ["k.pem", "/k.pem"]\ninventories = ["t=d.toml", "d.toml"]\n'
    )
    for typed in (["--config", "etc/c.toml", "config", "--json"], ["config", "--json", "--config", "etc/c.toml"]):
        found = json.loads(run(*typed))
        assert found["storage"] == {"value": "etc/r.sqlite", "from": "etc/c.toml"}
        assert found["keys"]["value"] == ["etc/k.pem", "/k.pem"]
        assert found["inventories"]["value"] == ["t=etc/d.toml", "etc/d.toml"]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"DYNPIN_COLLECTOR_PROT": "1"}, "DYNPIN_COLLECTOR_PROT is not a setting; did you mean DYNPIN_COLLECTOR_PORT"),
        ({"DYNPIN_COLLECTOR_PORT": "99999"}, "DYNPIN_COLLECTOR_PORT = '99999' is not understood: it is the port"),
        ({"DYNPIN_COLLECTOR_OPEN_ACCESS": "perhaps"}, "is not understood: it is let everyone"),
        ({"DYNPIN_COLLECTOR_CONFIG": "nowhere.toml"}, "nowhere.toml cannot be read"),
    ],
)
def test_what_is_not_understood_is_named(environment: dict[str, str], said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        read_settings({}, None, environment)


def test_the_token_of_programs_that_ask_is_no_setting() -> None:
    assert read_settings({}, None, {"DYNPIN_COLLECTOR_TOKEN": "x"}).settings.tokens == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "collector.toml: prot is not known here; did you mean port?"),
        ("port = 99999", "port = 99999 is not understood: give the port to listen on"),
        ('limit_source = "many"', "limit_source"),
        ("port = ", "collector.toml is not a TOML file"),
        ('storage = " "', "storage is not understood: give where reports are kept"),
        ('storage = "r.sqlite\\n"', "storage is not understood"),
        ('roots = ""', 'roots = "" is not understood'),
        ('keys = ["a.pem", "\\u0000"]', "is not understood: give your certificates and keys"),
    ],
)
def test_what_the_file_says_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "collector.toml").write_text(text)
    assert said in " ".join(run("config", code=2).split())


def test_nothing_secret_is_printed(tmp_path: Path) -> None:
    (tmp_path / "collector.toml").write_text('password = "hunter2"\nalerts = ["slack://hunter2/x"]\n')
    for typed in (["config"], ["config", "--json"]):
        assert "hunter2" not in run(*typed)


@pytest.mark.parametrize(
    "text",
    [
        'alerts = "slack://hunter2/x"',
        'storage = ["postgresql://u:hunter2@127.0.0.1:1/x"]',
        'password = ["hunter2"]',
        "password = { text = 'hunter2' }",
    ],
)
def test_no_message_about_the_file_shows_a_secret(tmp_path: Path, text: str) -> None:
    (tmp_path / "collector.toml").write_text(text)
    said = run("config", code=2)
    assert "is not understood: give" in " ".join(said.split())
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "address",
    [
        "host=127.0.0.1 port=1 password=hunter2",
        "postgresql:/u:hunter2@127.0.0.1:1/x",
        " postgres:u:hunter2@127.0.0.1:1/x",
        "mysql://u:hunter2@127.0.0.1:1/x",
    ],
)
@pytest.mark.parametrize("verb", ["", "config", "status", "prune", "migrate", "tokens list", "tokens add"])
def test_an_address_with_a_slip_is_no_file(tmp_path: Path, address: str, verb: str) -> None:
    said = run("--storage", address, "--port", "0", *verb.split(), code=2)
    assert "postgresql://USER@HOST/DATABASE" in "".join(said.split("\n"))
    assert "hunter2" not in said
    assert list(tmp_path.iterdir()) == []


def test_the_settings_of_the_file_are_those_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "collector.toml").write_text('tokens = ["demo"]\nopen_access = true\nlimit_source = 1\n')
    with collecting(tmp_path / "r.sqlite") as (_, said):
        statuses = [httpx.post(said["report-uri"], json={}, trust_env=False, timeout=60).status_code for _ in range(2)]
    assert statuses == [200, 429]


# -- the command line -------------------------------------------------------------------------------------------------


def test_the_storage_may_stand_before_the_verb_and_after_it(tmp_path: Path) -> None:
    first = run("--storage", "a.sqlite", "tokens", "add").strip()
    second = run("tokens", "add", "--storage", "a.sqlite").strip()
    listed = json.loads(run("--storage", "a.sqlite", "tokens", "list", "--json"))
    assert {one["token"] for one in listed} == {first, second}
    assert run("--storage", "b.sqlite", "prune", "--storage", "a.sqlite", "--json")
    assert [file.name for file in tmp_path.glob("*.sqlite")] == ["a.sqlite"]


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("*.acme.test", "--host: '*.acme.test' is not a host name: acme.test covers its subdomains too"),
        ("https://acme.test", "is not a host name"),
        ("a b", "is not a host name"),
        ("", "is not a host name"),
    ],
)
def test_what_is_no_host_is_refused(tmp_path: Path, host: str, said: str) -> None:
    assert said in " ".join(run("tokens", "add", "--host", host, code=2).split())
    assert list(tmp_path.glob("*.sqlite")) == []


@pytest.mark.parametrize("token", ["a b", "", "ä", "a/b", "x" * 129])
def test_what_cannot_stand_in_a_report_uri_is_no_token(token: str) -> None:
    told = " ".join(run("--port", "0", "--token", token, code=2).split())
    assert "cannot be in a report-uri" in told
    assert "report-uri http" not in told


def test_tokens_of_settings_are_listed_with_the_stored_ones(tmp_path: Path) -> None:
    file = tmp_path / "r.sqlite"
    with collecting(file, "--token", "typed", "--open-access"):
        stored = run("tokens", "add", "--storage", str(file)).strip()
        listed = json.loads(run("tokens", "list", "--storage", str(file), "--json"))
        assert {one["token"]: one["from"] for one in listed} == {"typed": "settings", stored: "storage"}
        assert "in the settings of a collector" in run("tokens", "list", "--storage", str(file))
        told = run("tokens", "revoke", "typed", "--storage", str(file), code=1)
    assert "is in the settings of a collector" in " ".join(told.split())


@pytest.mark.parametrize("text", ["", "no certificate", LEAF.pem[:-60]])
def test_roots_without_a_certificate_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "roots.pem").write_text(text)
    told = " ".join(run("--port", "0", "--roots", "roots.pem", code=2).split())
    assert "roots: roots.pem has no readable certificate in PEM" in told


def test_a_passphrase_on_the_key_is_told(tmp_path: Path) -> None:
    write_pair(tmp_path)
    encrypted = ROOT.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "key.pem").write_bytes(encrypted)
    told = " ".join(run("--tls-certificate", "cert.pem", "--tls-key", "key.pem", code=2).split())
    assert "key.pem is encrypted: a server cannot read it" in told
    assert "openssl pkey -in key.pem" in told


def test_printed_report_uris_follow_the_public_address(tmp_path: Path) -> None:
    with collecting(tmp_path / "r.sqlite", "--token", "t", "--public-url", "https://pins.example/") as (_, said):
        assert said["report-uri"] == "https://pins.example/r/t/enforce"
        assert said["pages"] == "https://pins.example/"


@pytest.mark.parametrize(
    "url", ["pins.example", "ftp://pins.example", "https://", "https://pins.example/?x", "https://a b", "https://a/\n"]
)
def test_what_is_no_public_address_is_refused(url: str) -> None:
    assert "is not an address" in " ".join(run("--port", "0", "--public-url", url, code=2).split())


@pytest.mark.parametrize("verb", [[], ["config"]])
def test_a_public_address_has_no_password(verb: list[str]) -> None:
    said = " ".join(run("--port", "0", "--public-url", "https://u:hunter2@pins.example/", *verb, code=2).split())
    assert "has a user or a password" in said
    assert "hunter2" not in said


def test_a_certificate_that_is_not_there_is_named() -> None:
    said = " ".join(run("--port", "0", "--tls-certificate", "nowhere.pem", code=2).split())
    assert "nowhere.pem: No such file or directory; check the path" in said


def test_a_user_header_without_a_proxy_is_refused() -> None:
    told = " ".join(run("--port", "0", "--user-header", "X-User", code=2).split())
    assert "anybody could send X-User; name your reverse proxy with trusted_proxies (--trusted-proxy)" in told


def test_what_is_wrong_leaves_no_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["collect", "--port", "0", "--source-address", "half"])
    assert result.exit_code == 2
    assert "is not a part of an address" in " ".join(result.output.split())


def test_a_storage_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "other.sqlite").write_text("no database at all, and longer than a header of one" * 10)
    told = " ".join(run("--port", "0", "--storage", "other.sqlite", "--open-access", code=2).split())
    assert "the report storage other.sqlite cannot be used" in told
    storage = open_storage(tmp_path / "new.sqlite")
    storage.close()


@pytest.mark.parametrize("verb", [["tokens", "add"], ["api-tokens", "add", "ramp", "--scope", "read"]], ids=" ".join)
def test_a_verb_that_makes_a_storage_says_so(verb: list[str], tmp_path: Path) -> None:
    first, second = (CliRunner().invoke(app, ["collect", *verb]) for _ in range(2))
    assert f"a new storage: {tmp_path / 'reports.sqlite'}" in first.stderr
    assert "a new storage" not in second.stderr


def test_tokens_of_the_api(tmp_path: Path) -> None:
    text = run("api-tokens", "add", "ramp-shop", "--scope", "site:shop.test", "--scope", "read").strip()
    assert text.startswith("dynpin_")
    assert text.encode() not in (tmp_path / "reports.sqlite").read_bytes(), "the storage knows its hash alone"
    (one,) = json.loads(run("api-tokens", "list", "--json"))
    assert (one["name"], one["scopes"], one["used_at"], one["revoked_at"]) == (
        "ramp-shop",
        ["site:shop.test", "read"],
        None,
        None,
    )
    assert "ramp-shop" in run("api-tokens", "list")
    again = " ".join(run("api-tokens", "add", "ramp-shop", "--scope", "read", code=1).split())
    assert "revoke it first" in again
    assert "is revoked" in run("api-tokens", "revoke", "ramp-shop")
    run("api-tokens", "revoke", "ramp-shop", code=1)
    assert "is not a scope" in " ".join(run("api-tokens", "add", "x", "--scope", "all", code=2).split())
    run("api-tokens", "add", "ramp-shop", "--scope", "read")


def test_a_token_of_the_api_reads_until_it_is_revoked(tmp_path: Path) -> None:
    file = tmp_path / "r.sqlite"
    text = run("api-tokens", "add", "ci", "--scope", "read", "--storage", str(file)).strip()
    with collecting(file, "--token", "t", "--password", "right") as (_, said):
        fields = {"authorization": f"Bearer {text}"}
        with httpx.Client(base_url=said["listening"], headers=fields, trust_env=False, timeout=60) as client:
            assert client.get("/api/groups").status_code == 200
            (one,) = json.loads(run("api-tokens", "list", "--storage", str(file), "--json"))
            assert one["used_at"]
            run("api-tokens", "revoke", "ci", "--storage", str(file))
            assert client.get("/api/groups").status_code == 401


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("keep_days = inf", "from 1 to 36500"),
        ("keep_days = 1e-8", "from 1 to 36500"),
        ("body_seconds = inf", "600 at most"),
        ("head_seconds = 1e9", "600 at most"),
        ("connections = 100000000000000000000", "how many connections may be open at once, from 1 to 1000000000"),
        ('host = ""', "such as 0.0.0.0"),
        ('tokens = ["a b"]', "cannot be in a report-uri"),
        ('trusted_proxies = ["10.0.0.1/8"]', "is not a trusted proxy"),
        ('source_address = "/99"', "is not a part of an address"),
        ('public_url = "pins.example"', "is not an address"),
    ],
)
def test_what_a_start_would_refuse_is_refused_by_config_too(
    line: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "collector.toml").write_text(f"{line}\n")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["collect", "config"])
    assert result.exit_code == 2, result.output
    assert told in " ".join(result.output.split())


@pytest.mark.parametrize("days", [-1, 36_501, float("nan"), float("inf")])
def test_reports_are_kept_for_a_time(days: float) -> None:
    with pytest.raises(ValueError, match="name a number from 0 to 36500"):
        Retention(days=days)
