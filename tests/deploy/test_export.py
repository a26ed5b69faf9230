"""`dynpin export`: each format is read by the program that it is for, where there is one."""

from __future__ import annotations

import os
import plistlib
import re
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from dynpin import KnownPinnedHost, Pin, PublicKeyPins
from dynpin.deploy.export import FORMATS, HEADER_FORMATS, STATIC_FORMATS, export_header, export_static
from tests.deploy.commands import dynpin
from tests.deploy.servers import (
    CONFIGURATIONS,
    MODULES,
    Site,
    commands,
    fetch,
    make_site,
    program,
    reserved_port,
    running,
    tls_server,
)

BACKUP, FOREIGN = Pin(b"\x01" * 31 + b"b"), Pin(b"\x02" * 31 + b"f")
# Everything that a report-uri may hold and a configuration language may read as its own.
AWKWARD = "https://r.example.net/a'b%20c?x=%7B1%7D&y=(~)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"), "localhost", "www.example.com")


@pytest.mark.parametrize("report_only", [False, True], ids=["enforce", "report-only"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_server_takes_the_line_and_sends_the_header(
    name: str, report_only: bool, site: Site, tmp_path: Path
) -> None:
    binary = {"apache": "apache2"}.get(name, name)
    if program(binary) is None:
        pytest.skip(f"{binary} is not installed: apt-get install {binary}")
    header = PublicKeyPins((Pin.from_file(site.chain), BACKUP), 2592000, True, AWKWARD, report_only)
    config = tmp_path / "server.conf"
    with reserved_port() as port:
        config.write_text(
            CONFIGURATIONS[name]
            .format(
                lines=export_header(name, header),
                folder=tmp_path,
                port=port,
                chain=site.chain,
                key=site.key,
                both=site.both,
                modules=MODULES,
            )
            .rstrip(" ")
        )
        check, serve = commands(name, config)
        checked = subprocess.run(check, capture_output=True, text=True, check=False, timeout=300, env=_home(tmp_path))
        assert checked.returncode == 0, checked.stdout + checked.stderr
        with running(serve, port, tmp_path):
            for path, status in (("/missing", 404), ("/moved", 302) if name == "apache" else ("/", 200)):
                assert fetch(site, port, path, header.name) == (status, [str(header)])


def _home(folder: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}


def test_traefik_s_dynamic_configuration(site: Site) -> None:
    yaml: Any = pytest.importorskip("yaml")
    header = PublicKeyPins((Pin.from_file(site.chain), BACKUP), 2592000, True, AWKWARD)
    loaded = yaml.safe_load(export_header("traefik", header))
    assert loaded == {
        "http": {
            "middlewares": {"public-key-pins": {"headers": {"customResponseHeaders": {"Public-Key-Pins": str(header)}}}}
        }
    }


def entry(
    *pins: Pin, host: str = "www.example.com", subdomains: bool = True, ends: float | None = 1_830_297_600
) -> KnownPinnedHost:
    return KnownPinnedHost(host, pins, subdomains, "https://r.example.net/x?a=1&b=2", 1_795_000_000, ends, "static")


@pytest.mark.parametrize(("pinned", "code"), [("own", 0), ("foreign", 90)])
def test_curl_visits_the_pinned_key_and_no_other(pinned: str, code: int, site: Site, tmp_path: Path) -> None:
    curl = program("curl")
    if curl is None:
        pytest.skip("curl is not installed: apt-get install curl")
    pins = (BACKUP, Pin.from_file(site.chain)) if pinned == "own" else (BACKUP, FOREIGN)
    config = tmp_path / "curlrc"
    config.write_text(export_static("curl", entry(*pins)))
    with tls_server(site) as port:
        command = [curl, "-q", "--silent", "--config", str(config), "--cacert", str(site.roots), "--noproxy", "*"]
        command += ["--resolve", f"www.example.com:{port}:127.0.0.1", f"https://www.example.com:{port}/"]
        done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (code, b"ok" if code == 0 else b"")


@pytest.mark.parametrize(("pinned", "code"), [("own", 0), ("foreign", 5)])
def test_wget2_visits_the_pinned_key_and_no_other(pinned: str, code: int, site: Site, tmp_path: Path) -> None:
    wget2 = program("wget2")
    if wget2 is None:
        pytest.skip("wget2 is not installed: apt-get install wget2")
    pins = (BACKUP, Pin.from_file(site.chain)) if pinned == "own" else (BACKUP, FOREIGN)
    known = tmp_path / "hpkp"
    known.write_text(export_static("wget2", entry(*pins, host="localhost", ends=None)))
    command = [wget2, "--no-config", "--hpkp", f"--hpkp-file={known}", f"--ca-certificate={site.roots}", "--no-hsts"]
    command += ["--tries=1", "--timeout=60", "--no-ocsp", "-O", str(tmp_path / "page")]
    with tls_server(site) as port:
        done = subprocess.run(
            [*command, f"https://localhost:{port}/"], capture_output=True, timeout=300, check=False, env=_home(tmp_path)
        )
    assert done.returncode == code


@pytest.mark.parametrize("form", ["android", "trustkit-android"])
def test_android_s_network_security_config(form: str) -> None:
    root = ET.fromstring(export_static(form, entry(BACKUP, FOREIGN)))
    assert root.tag == "network-security-config"
    [config] = root
    assert config.tag == "domain-config"
    domain, pins, *rest = config
    assert (domain.tag, domain.text, domain.attrib) == ("domain", "www.example.com", {"includeSubdomains": "true"})
    assert (pins.tag, pins.attrib) == ("pin-set", {"expiration": "2028-01-01"})
    assert [(pin.tag, pin.attrib, pin.text) for pin in pins] == [
        ("pin", {"digest": "SHA-256"}, str(BACKUP)),
        ("pin", {"digest": "SHA-256"}, str(FOREIGN)),
    ]
    if form == "android":
        assert rest == []
    else:
        [trustkit] = rest
        assert (trustkit.tag, trustkit.attrib) == ("trustkit-config", {"enforcePinning": "true"})
        assert [(each.tag, each.text) for each in trustkit] == [("report-uri", "https://r.example.net/x?a=1&b=2")]


def test_ios_and_trustkit_property_lists() -> None:
    ios = plistlib.loads(export_static("ios", entry(BACKUP, FOREIGN)).encode())
    assert ios["NSAppTransportSecurity"]["NSPinnedDomains"] == {
        "www.example.com": {
            "NSIncludesSubdomains": True,
            "NSPinnedLeafIdentities": [{"SPKI-SHA256-BASE64": str(BACKUP)}, {"SPKI-SHA256-BASE64": str(FOREIGN)}],
        }
    }
    trustkit = plistlib.loads(export_static("trustkit-ios", entry(BACKUP, FOREIGN, subdomains=False)).encode())
    assert trustkit["TSKConfiguration"]["TSKPinnedDomains"] == {
        "www.example.com": {
            "TSKEnforcePinning": True,
            "TSKIncludeSubdomains": False,
            "TSKPublicKeyHashes": [str(BACKUP), str(FOREIGN)],
            "TSKExpirationDate": "2028-01-01",
            "TSKReportUris": ["https://r.example.net/x?a=1&b=2"],
        }
    }


def test_okhttp_adds_the_host_and_its_subdomains() -> None:
    pins = f'"sha256/{BACKUP}", "sha256/{FOREIGN}"'
    with_subdomains = export_static("okhttp", entry(BACKUP, FOREIGN))
    assert re.findall(r"\.add\((.*)\)", with_subdomains) == [
        f'"www.example.com", {pins}',
        f'"**.www.example.com", {pins}',
    ]
    assert "**" not in export_static("okhttp", entry(BACKUP, FOREIGN, subdomains=False))


def test_dynpin_s_static_pins_are_toml() -> None:
    loaded = tomllib.loads(export_static("dynpin", entry(BACKUP, FOREIGN)))
    [static] = loaded["static"]
    assert static.pop("expires_at").timestamp() == 1_830_297_600
    assert (
        static.items()
        >= {
            "host": "www.example.com",
            "pins": [str(BACKUP), str(FOREIGN)],
            "include_subdomains": True,
            "report_uri": "https://r.example.net/x?a=1&b=2",
        }.items()
    )
    assert "expires_at" not in tomllib.loads(export_static("dynpin", entry(BACKUP, ends=None)))["static"][0]


GO_CLIENT = """\
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"example.com/client/pins"
)

func main() {
	roots := x509.NewCertPool()
	pem, _ := os.ReadFile(os.Args[1])
	roots.AppendCertsFromPEM(pem)
	for _, name := range os.Args[3:] {
		config := &tls.Config{RootCAs: roots, ServerName: name, VerifyConnection: pins.VerifyConnection}
		_, err := tls.Dial("tcp", os.Args[2], config)
		fmt.Println(name, err)
	}
}
"""


def test_go_formats_the_package_as_it_is(tmp_path: Path) -> None:
    gofmt = program("gofmt")
    if gofmt is None:
        pytest.skip("gofmt is not installed: apt-get install golang-go")
    (tmp_path / "pins.go").write_text(export_static("go", entry(BACKUP, FOREIGN)))
    done = subprocess.run([gofmt, "-l", "-e", str(tmp_path)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_go_refuses_another_key(site: Site, tmp_path: Path) -> None:
    go = program("go")
    if go is None:
        pytest.skip("go is not installed: apt-get install golang-go")
    (tmp_path / "pins").mkdir()
    (tmp_path / "go.mod").write_text("module example.com/client\n\ngo 1.19\n")
    (tmp_path / "main.go").write_text(GO_CLIENT)
    answers = []
    for pin in (Pin.from_file(site.chain), FOREIGN):
        (tmp_path / "pins" / "pins.go").write_text(export_static("go", entry(BACKUP, pin, ends=None)))
        with tls_server(site) as port:
            command = [go, "run", ".", str(site.roots), f"127.0.0.1:{port}", "www.example.com", "localhost"]
            environment = {**_home(tmp_path), "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
            done = subprocess.run(
                command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300, env=environment
            )
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout)
    assert answers == [
        "www.example.com <nil>\nlocalhost <nil>\n",
        "www.example.com pins: www.example.com shows none of its pinned keys\nlocalhost <nil>\n",
    ]


def test_what_a_format_cannot_say_is_refused() -> None:
    pins = (BACKUP, FOREIGN)
    with pytest.raises(ValueError, match="two pins"):
        export_header("nginx", PublicKeyPins((BACKUP,), 600))
    with pytest.raises(ValueError, match="%24"):
        export_header("nginx", PublicKeyPins(pins, 600, report_uri="https://r.example.net/$x"))
    with pytest.raises(ValueError, match="TrustKit wants two"):
        export_static("trustkit-ios", entry(BACKUP))
    for form, host, subdomains, why in (
        ("go", "192.0.2.1", False, "is an IP address, and"),
        ("okhttp", "[2001:db8::1]", False, "is an IP address, and"),
        ("android", "*.a.example", False, "never be enforced"),
        ("okhttp", "*.a.example", True, "never be enforced"),
    ):
        with pytest.raises(ValueError, match=why):
            export_static(form, entry(*pins, host=host, subdomains=subdomains))
    assert '.add("*.a.example"' in export_static("okhttp", entry(*pins, host="*.a.example", subdomains=False))
    with pytest.raises(ValueError, match="no pin"):
        export_static("curl", entry())
    with pytest.raises(ValueError, match="not a server"):
        export_header("iis", PublicKeyPins(pins, 600))
    assert "max-age=0" in export_header("nginx", PublicKeyPins((), 0))


def test_the_command_takes_files_and_pins(site: Site) -> None:
    pin = Pin.from_file(site.chain)
    result = dynpin("export", "nginx", str(site.chain), str(BACKUP), "--max-age", "600", "--include-subdomains")
    assert (result.exit_code, f"the pin {BACKUP} may be that of the root of" in result.stderr) == (0, True)
    assert f"'{PublicKeyPins((pin, BACKUP), 600, True)}'" in result.stdout
    reports = ("--report-uri", "https://r.example.net/", "--host", "www.example.com")
    result = dynpin("export", "nginx", str(pin), str(BACKUP), "--mode", "report-only", *reports)
    assert "add_header Public-Key-Pins-Report-Only" in result.stdout
    result = dynpin("export", "android", str(pin), str(BACKUP), "--host", "WWW.example.com", "--expires", "2028-01-01")
    assert 'expiration="2028-01-01"' in result.stdout
    assert ">www.example.com<" in result.stdout
    one = dynpin("export", "curl", str(pin), "--host", "www.example.com")
    assert (one.exit_code, "no pin is that of a backup" in one.stderr) == (0, True)
    unpin = dynpin("export", "nginx", str(pin), "--mode", "unpin")
    assert (unpin.exit_code, f"'{PublicKeyPins((pin,), 0)}'" in unpin.stdout) == (0, True)


@pytest.mark.parametrize("backup", ["roots", "chain"])
def test_a_key_of_the_validated_chain_is_no_backup(backup: str, site: Site) -> None:
    result = dynpin("export", "nginx", str(site.chain), str(getattr(site, backup)))
    assert (result.exit_code, "outside the deployed chain" in result.stderr, result.stdout) == (2, True, "")
    # Clients of other kinds may pin a CA; that it is no backup is told.
    static = dynpin("export", "curl", str(site.chain), str(getattr(site, backup)), "--host", "www.example.com")
    assert (static.exit_code, "no pin is that of a backup" in static.stderr) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("iis", str(BACKUP)), "iis is not a format"),
        (("nginx", "nowhere.pem"), "nowhere.pem is neither a pin nor a file"),
        (("nginx", str(BACKUP)), "needs two pins"),
        (("android", str(BACKUP)), "--host"),
        (("android", str(BACKUP), "--host", "a b"), "is not a host name"),
        (("nginx", str(FOREIGN), str(BACKUP), "--max-age", "99999999"), "RFC 7469 §4.1"),
        (("nginx", str(FOREIGN), str(BACKUP), "--max-age", "5184001"), "Take 5184000 seconds or fewer"),
        (("nginx", str(FOREIGN), str(BACKUP), "--mode", "report-only"), "--report-uri"),
        (("nginx", str(FOREIGN), str(BACKUP), "--report-uri", "https://r.example.net/"), "--host"),
        (("ios", str(BACKUP), "--host", "a.example", "--mode", "unpin"), "the mode is unpin"),
        (("curl", str(BACKUP), "--host", "a.example", "--expires", "2020-01-01"), "--expires 2020-01-01 is past"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    result = dynpin("export", *arguments)
    assert (result.exit_code, said in result.stderr, result.stdout) == (2, True, "")


def test_every_format_is_a_server_s_or_a_client_s() -> None:
    assert set(HEADER_FORMATS) | set(STATIC_FORMATS) == set(FORMATS)
    assert not set(HEADER_FORMATS) & set(STATIC_FORMATS)
