"""`dynpin check` tells apart: no header, another site's inventory, a root that it does not know, an attack."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from dynpin import Pin, PublicKeyPins
from dynpin.recovery import Recovery
from tests.deploy.commands import dynpin
from tests.deploy.servers import Site, make_site
from tests.deploy.test_check import HOST, NEW, NEXT, OLD, Answer, check, everywhere, faults, serving
from tests.headers import DIRECTIVES

DAY = 86_400
ALARMS = ("revoke", "attack", "broken into", "hostile", "misissued")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A folder with a site's certificate and its inventory, in which the commands are run."""
    made = make_site(tmp_path / "tls", HOST)
    describe(tmp_path)
    monkeypatch.chdir(tmp_path)
    return made


def describe(folder: Path, *, host: str = HOST, policy: str = 'max_age = "30 days"', more: str = "") -> None:
    (folder / "dynpin.toml").write_text(
        f'hosts = ["{host}"]\nkeys = ["tls/chain.pem"]\nbackups = [{{ pin = "{NEW}" }}]\n[policy]\n{policy}\n{more}\n'
    )


def header(site: Site, max_age: int = 30 * DAY) -> PublicKeyPins:
    return PublicKeyPins((Pin.from_file(site.chain), NEW), max_age)


def told(site: Site, port: int, *options: str, roots: Path | None = None) -> tuple[int, str]:
    """Exit code and everything that a person reads, in one line."""
    arguments = ["check", f"https://{HOST}:{port}/", "--address", "127.0.0.1", "--ca", str(roots or site.roots)]
    result = dynpin(*arguments, *options)
    return result.exit_code, " ".join((result.stdout + result.stderr).split())


# -- no header --------------------------------------------------------------------------------------------------------


def nothing(path: str) -> tuple[int, dict[str, str], str]:
    return (200 if path == "/" else 404), {}, ""


def test_no_header_and_the_commonest_reasons_in_order(site: Site) -> None:
    with serving(nothing, site) as port:
        code, said = told(site, port)
        seen = check(site, port, code=1)
    assert code == 1
    assert f"{HOST} sends no pinning header" in said
    assert "dynpin init" not in said  # its dynpin.toml is there
    places = [
        said.index(word)
        for word in (
            "the request came over http",
            "proxy_set_header X-Forwarded-Proto $scheme",
            "--forwarded-allow-ips",
            "--trusted-proxy-headers=x-forwarded-proto",
            "ProxyFix(app.wsgi_app, x_proto=1)",
            "SECURE_PROXY_SSL_HEADER alone leaves wsgi.url_scheme at http",
            "the proxy's own",
            "proxy_hide_header",
            "dynpin holds the header back",
        )
    ]
    assert places == sorted(places)
    # Nothing is said of the days of keys: the deployed key is deployed.
    assert "on the day" not in said
    assert not [word for word in ALARMS if word in said]
    assert (faults(seen), seen["lacking"], seen["sends_header"]) == ({"header-missing"}, [], False)


def moved(path: str) -> tuple[int, dict[str, str], str]:
    return 301, {"Location": "https://www.other.example/start"}, ""


def failing(path: str) -> tuple[int, dict[str, str], str]:
    return 502, {}, ""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (nothing, "/ (200), /dynpin-check-"),
        (moved, "/ leads to https://www.other.example/start, another host"),
        (failing, "the proxy may not reach the app"),
    ],
    ids=["answers", "redirect", "error"],
)
def test_what_was_seen_where_there_is_no_header(answer: Answer, said: str, site: Site) -> None:
    with serving(answer, site) as port:
        [missing] = check(site, port, code=1)["findings"]
    assert said in missing["message"]


@pytest.mark.parametrize(("has", "said"), [(True, "Over plain http there is one"), (False, "none either")])
def test_plain_http_beside_no_header(has: bool, said: str, site: Site) -> None:
    over_http = everywhere(header(site)) if has else nothing
    with serving(over_http, None) as plain, serving(nothing, site) as port:
        seen = check(site, port, "--http-port", str(plain), code=1)
    missing = next(each for each in seen["findings"] if each["fault"] == "header-missing")
    assert said in missing["message"]


def test_another_path_has_the_header(site: Site) -> None:
    fields = {"Public-Key-Pins": str(header(site))}
    with serving(lambda path: (200, fields if path == "/app" else {}, ""), site) as port:
        seen = check(site, port, "--path", "/app", code=1)
    assert faults(seen) == {"header-missing-on-some-responses"}
    assert seen["findings"][0]["message"].startswith("The header is missing on /, /dynpin-check-")


def test_report_only_instead(site: Site) -> None:
    sent = PublicKeyPins(header(site).pins, None, report_uri="https://reports.example.net/r", report_only=True)
    with serving(lambda path: (200, {"Public-Key-Pins-Report-Only": str(sent)}, ""), site) as port:
        seen = check(site, port, "--no-probe", code=1)
    assert faults(seen) == {"header-differs-from-inventory"}
    assert "Public-Key-Pins-Report-Only is sent, but the file says Public-Key-Pins" in seen["findings"][0]["message"]


# -- another site's inventory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--inventory", "dynpin.toml")], ids=["found", "named"])
def test_a_host_that_the_inventory_does_not_name(options: tuple[str, ...], site: Site, tmp_path: Path) -> None:
    describe(tmp_path, host="shop.acme.test")
    with serving(everywhere(header(site)), site) as port:
        code, said = told(site, port, *options)
    assert code == 2
    assert f"{HOST} is not in hosts of {tmp_path}/dynpin.toml (shop.acme.test)" in said
    assert not [word for word in ALARMS if word in said]


@pytest.mark.parametrize("host", ["*.example.com", "WWW.Example.COM"])
def test_a_host_that_the_inventory_names_in_another_way(host: str, site: Site, tmp_path: Path) -> None:
    describe(tmp_path, host=host)
    named = make_site(site.folder, host.lower())
    with serving(everywhere(header(named)), named) as port:
        assert faults(check(named, port, code=0)) == set()


# -- a root that is not known -----------------------------------------------------------------------------------------


def test_a_root_that_is_not_known(site: Site, tmp_path: Path) -> None:
    other = make_site(tmp_path / "other", HOST)
    with serving(everywhere(header(site)), site) as port:
        code, said = told(site, port, roots=other.roots)
        unknown = dynpin("check", f"https://{HOST}:{port}/", "--address", "127.0.0.1")
        seen = check(replace(site, roots=other.roots), port, code=1)
    assert code == 1
    assert "unable to get local issuer certificate" in said
    assert "--ca FILE" in said
    assert faults(seen) == {"header-on-invalid-certificate"}
    assert (unknown.exit_code, "--ca FILE" in unknown.stdout) == (1, True)


def test_the_roots_of_the_inventory_are_known(site: Site, tmp_path: Path) -> None:
    text = (tmp_path / "dynpin.toml").read_text()
    (tmp_path / "dynpin.toml").write_text(f'roots = ["tls/roots.pem"]\n{text}')
    with serving(everywhere(header(site)), site) as port:
        result = dynpin("check", f"https://{HOST}:{port}/", "--address", "127.0.0.1")
    assert result.exit_code == 0, result.output


# -- an attack --------------------------------------------------------------------------------------------------------


def test_an_attack_is_a_valid_chain_for_this_host_with_none_of_its_keys(site: Site, tmp_path: Path) -> None:
    # Another CA that clients trust has signed a certificate for this host.
    mallory = make_site(tmp_path / "mallory", HOST)
    both = tmp_path / "both.pem"
    both.write_bytes(site.roots.read_bytes() + mallory.roots.read_bytes())
    foreign = PublicKeyPins((Pin.from_file(mallory.chain), NEXT), 30 * DAY)
    with serving(everywhere(foreign), mallory) as port:
        seen = check(replace(mallory, roots=both), port, code=1)
        # To clients who do not trust that CA nothing has happened but a refused connection.
        invalid = check(site, port, code=1)
    assert "hostile-pinning-by-misissued-certificate" in faults(seen)
    assert (seen["lacking"], seen["not_deployed"]) == ([], {})
    assert "header-on-invalid-certificate" in faults(invalid)
    assert not [name for name in faults(invalid) if name.startswith("hostile")]


def test_a_foreign_pin_beside_the_own_key_is_an_alarm_of_its_own(site: Site) -> None:
    foreign = PublicKeyPins((*header(site).pins, OLD), 30 * DAY)
    with serving(everywhere(foreign), site) as port:
        seen = check(site, port, code=1)
    assert faults(seen) == {"hostile-pinning-ransompkp"}
    assert "name it there" in seen["findings"][0]["fix"]


# -- the inventory and the live header --------------------------------------------------------------------------------


def test_a_key_of_the_inventory_that_the_header_lacks_is_told_by_its_role(site: Site) -> None:
    for sent, label, day in (
        (PublicKeyPins((Pin.from_file(site.chain), OLD), 30 * DAY), "the backup key", True),
        (PublicKeyPins((OLD, NEW), 30 * DAY), "the deployed key", False),
    ):
        with serving(everywhere(sent), site) as port:
            code, said = told(site, port)
        assert (code, label in said, "when it is deployed" in said) == (1, True, day)


DIFFERENT: dict[str, tuple[object, str]] = {
    "max_age": (DAY * 20, "max-age is 20 days"),
    "include_subdomains": (True, "it has includeSubDomains"),
    "report_uri": ("https://r.example.net/", "report-uri is https://r.example.net/, but the file says none"),
    "recovery": (
        Recovery(bytes(32), "https://r.example.net/"),
        "at https://r.example.net/, but the file says not sent",
    ),
}


def test_each_directive_is_held_against_the_inventory() -> None:
    assert DIFFERENT.keys() == set(DIRECTIVES), "give each directive a row"


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_header_that_the_inventory_does_not_make(name: str, site: Site) -> None:
    value, said = DIFFERENT[name]
    sent = replace(header(site), **{name: value})  # type: ignore[arg-type]  # by its name
    with serving(everywhere(sent), site) as port:
        seen = check(site, port, "--no-probe", code=1)
    assert faults(seen) == {"header-differs-from-inventory"}
    assert said in seen["findings"][0]["message"]


@pytest.mark.parametrize("max_age", [None, 300, 3600, DAY, 7 * DAY, 30 * DAY])
def test_the_steps_of_the_ramp_are_no_fault(max_age: int | None, site: Site, tmp_path: Path) -> None:
    enforcing = "https://reports.example.net/r/TOKEN/enforce"
    describe(tmp_path, policy=f'max_age = "30 days"\nreport_uri = "{enforcing}"', more="[ramp]")
    if max_age is None:
        uri = enforcing.replace("enforce", "report-only")
        sent = PublicKeyPins(header(site).pins, None, report_uri=uri, report_only=True)
    else:
        sent = PublicKeyPins(header(site).pins, max_age, report_uri=enforcing)
    with serving(lambda path: (200, {sent.name: str(sent)}, ""), site) as port:
        assert faults(check(site, port, "--no-probe", code=0)) == set()
        odd = check(site, port, "--no-probe", "--fail-on", "critical", code=0)
    assert odd["findings"] == []
    if max_age == 300:
        with serving(everywhere(replace(sent, max_age=301)), site) as port:
            assert "not a step of the file's ramp" in told(site, port, "--no-probe")[1]


def test_a_file_that_makes_no_header_is_a_finding_beside_what_was_seen(site: Site, tmp_path: Path) -> None:
    describe(tmp_path, policy='max_age = "100 days"')
    with serving(everywhere(header(site)), site) as port:
        seen = check(site, port, code=1)
    assert faults(seen) == {"policy-refused"}
    assert seen["responses"][0]["status"] == 200


# -- nodes ------------------------------------------------------------------------------------------------------------


def test_the_nodes_behind_a_balancer_are_looked_at(site: Site, tmp_path: Path) -> None:
    stale = PublicKeyPins((Pin.from_file(site.chain), OLD), 30 * DAY)
    with (
        serving(everywhere(header(site)), site) as port,
        serving(everywhere(stale), site, "127.0.0.2") as other,
    ):
        describe(tmp_path, more=f'[site]\nnodes = ["127.0.0.1:{port}", "127.0.0.2:{other}"]')
        seen = check(site, port, code=1)
        code, said = told(site, port)
    assert [(each["address"], each["port"]) for each in seen["responses"] if each["path"] == "/"] == [
        ("127.0.0.1", port),
        ("127.0.0.2", other),
    ]
    assert {"header-differs-between-nodes", "hostile-pinning-ransompkp"} <= faults(seen)
    assert seen["lacking"] == [str(NEW)]
    assert (code, f"127.0.0.2:{other}" in said) == (1, True)


def test_a_named_node_that_gives_no_answer_is_not_fine(site: Site, tmp_path: Path) -> None:
    with serving(everywhere(header(site)), site) as port:
        describe(tmp_path, more='[site]\nnodes = ["127.0.0.3:1"]')
        seen = check(site, port, code=1)
        code, said = told(site, port)
    assert (seen["findings"], seen["unseen"]) == ([], ["127.0.0.3:1: Connection refused"])
    assert (code, "127.0.0.3:1: Connection refused" in said) == (1, True)
    assert "No fault found" not in said


def test_a_host_without_an_address_in_the_dns_is_looked_at_by_its_nodes(site: Site, tmp_path: Path) -> None:
    with serving(everywhere(header(site)), site) as port:
        describe(tmp_path, more=f'[site]\nnodes = ["127.0.0.1:{port}"]')
        result = dynpin("check", f"https://{HOST}:{port}/", "--ca", str(site.roots), "--json")
    seen = json.loads(result.stdout)
    assert (seen["findings"], seen["unseen"]) == ([], [])
    assert [each["status"] for each in seen["responses"] if each["path"] == "/"] == [200]
    (remark,) = seen["remarks"]
    assert f"{HOST} has no address in the DNS" in remark
    assert result.exit_code == 1


def test_an_address_with_a_port(site: Site) -> None:
    with serving(everywhere(header(site)), site) as port:
        result = dynpin("check", HOST, "--ca", str(site.roots), "--address", f"127.0.0.1:{port}", "--json")
        wrong = dynpin("check", HOST, "--address", "127.0.0.1:99999")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["responses"][0]["port"] == port
    assert (wrong.exit_code, "127.0.0.1:99999 is not an address" in wrong.stderr) == (2, True)


# -- chains -----------------------------------------------------------------------------------------------------------


def test_a_chain_in_another_order_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = trustme.CA()
    leaf = root.create_child_ca().create_child_ca().issue_cert(HOST)
    site = make_site(tmp_path / "tls", HOST)
    root.cert_pem.write_to_path(site.roots)
    pems = [each.bytes() for each in leaf.cert_chain_pems]
    assert len(pems) == 3
    site.chain.write_bytes(pems[0])
    site.both.write_bytes(leaf.private_key_pem.bytes() + pems[0] + pems[2] + pems[1])
    with serving(everywhere(header(site)), site) as port:
        found = check(site, port, code=1)["findings"]
    assert [(each["fault"], each["severity"]) for each in found] == [("chain-out-of-order", "warning")]


def test_a_root_as_backup_is_found_on_the_live_site(site: Site, tmp_path: Path) -> None:
    (tmp_path / "dynpin.toml").unlink()
    root = Pin.from_file(site.roots)
    sent = PublicKeyPins((Pin.from_file(site.chain), root), 30 * DAY)
    with serving(everywhere(sent), site) as port:
        assert faults(check(site, port, code=1)) == {"backup-pin-missing-all-in-chain"}
