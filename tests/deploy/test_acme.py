"""The deploy hooks of ACME clients: run by certbot and lego themselves, and by a shell as acme.sh runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynpin import Pin
from dynpin.deploy.acme import ACME_CLIENTS
from tests.deploy.acme_server import ACME, Certbot, Lego, acme_server, lacking
from tests.deploy.commands import dynpin
from tests.deploy.guard_certificates import Shop, new_key

OTHER = "api.acme.test"

no_certbot = lacking("pebble", "certbot")
no_lego = lacking("pebble", "lego")


@pytest.fixture
def acme(tmp_path: Path) -> Iterator[ACME]:
    with acme_server(tmp_path / "pebble") as server:
        yield server


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "with space")


def hook(client: str, shop: Shop, folder: Path) -> Path:
    """The hook of a client as a file. lego splits its option at spaces, so none is in the path."""
    options = ("--inventory", str(shop.inventory), "--history", str(shop.folder / "history.json"))
    reload = f"echo reload >> '{shop.folder}/reloads'"
    made = dynpin("guard", "--hook", client, *options, "--install", str(shop.tls), "--reload", reload)
    assert made.exit_code == 0, made.output
    file = folder / f"{client}-hook"
    file.write_text(made.stdout)
    file.chmod(0o755)
    return file


def begin_with(shop: Shop, chain: Path, key: Path) -> None:
    """Have the site show what an ACME client has issued first."""
    shutil.copyfile(chain, shop.tls / "fullchain.pem")
    shutil.copyfile(key, shop.tls / "privkey.pem")


def installed(shop: Shop) -> tuple[bytes, bytes]:
    return (shop.tls / "fullchain.pem").read_bytes(), (shop.tls / "privkey.pem").read_bytes()


def reloads(shop: Shop) -> int:
    file = shop.folder / "reloads"
    return file.read_text().count("reload") if file.exists() else 0


@pytest.mark.skipif(no_certbot is not None, reason=str(no_certbot))
def test_certbot_renews_two_sites(acme: ACME, shop: Shop, tmp_path: Path) -> None:
    certbot = Certbot(acme, tmp_path / "certbot")
    lineage, other = certbot.issue(Shop.HOST), certbot.issue(OTHER)
    begin_with(shop, lineage / "fullchain.pem", lineage / "privkey.pem")
    script, first = str(hook("certbot", shop, tmp_path)), installed(shop)

    renewed = certbot.renew("--reuse-key", "--deploy-hook", script)
    assert renewed.returncode == 0, renewed.stderr
    second = ((lineage / "fullchain.pem").read_bytes(), (lineage / "privkey.pem").read_bytes())
    assert installed(shop) == second
    assert (second[0] != first[0], second[1] == first[1], reloads(shop)) == (True, True, 1)
    assert (shop.tls / "privkey.pem").stat().st_mode & 0o777 == 0o600
    assert f"is for {OTHER}, and this site is {Shop.HOST}" in renewed.stderr

    # With a new key nothing is installed, and certbot passes on what the hook said.
    stopped = certbot.renew("--no-reuse-key", "--deploy-hook", script)
    assert Pin.from_file(lineage / "fullchain.pem") != Pin.from_file(shop.tls / "fullchain.pem")
    assert (installed(shop), reloads(shop)) == (second, 1)
    assert stopped.stderr.count("reported error code 1") == 1, stopped.stderr
    assert "STOP: deploying this chain locks out everybody" in stopped.stdout + stopped.stderr
    assert (other / "fullchain.pem").read_bytes() not in installed(shop)

    # The way out that the docs tell: a request with the key that the site shows.
    request, key = tmp_path / "renew.csr.pem", str(shop.tls / "privkey.pem")
    names = ("-subj", f"/CN={Shop.HOST}", "-addext", f"subjectAltName=DNS:{Shop.HOST}")
    subprocess.run(["openssl", "req", "-new", "-key", key, *names, "-out", str(request)], check=True)
    signed = certbot.sign(request)
    put = ("--inventory", str(shop.inventory), "--install", str(shop.tls))
    assert dynpin("guard", str(signed), "--key", key, *put).exit_code == 0
    assert installed(shop) == (signed.read_bytes(), second[1])


@pytest.mark.skipif(no_lego is not None, reason=str(no_lego))
def test_lego_renews_two_sites(acme: ACME, shop: Shop, tmp_path: Path) -> None:
    lego = Lego(acme, tmp_path / "lego")
    chain, key = lego.issue(Shop.HOST)
    lego.issue(OTHER)
    begin_with(shop, chain, key)
    script = str(hook("lego", shop, tmp_path))
    again = ("renew", "--days", "100000", "--no-random-sleep", "--renew-hook", script)

    renewed = lego.run(Shop.HOST, *again, "--reuse-key")
    assert renewed.returncode == 0, renewed.stderr
    second = (chain.read_bytes(), key.read_bytes())
    assert (installed(shop), reloads(shop)) == (second, 1)
    skipped = lego.run(OTHER, *again, "--reuse-key")
    assert (skipped.returncode, f"is for {OTHER}" in skipped.stdout) == (0, True), skipped.stderr
    stopped = lego.run(Shop.HOST, *again)
    assert (stopped.returncode, "STOP: deploying" in stopped.stdout) == (1, True), stopped.stderr
    assert (installed(shop), reloads(shop)) == (second, 1)


# What each client tells its hook, by its own names.
TOLD = {
    "certbot": lambda chain: {"RENEWED_LINEAGE": str(chain.parent)},
    "lego": lambda chain: {"LEGO_CERT_PATH": str(chain), "LEGO_CERT_KEY_PATH": str(chain.with_name("privkey.pem"))},
    "lego 5": lambda chain: {
        "LEGO_HOOK_CERT_PATH": str(chain),
        "LEGO_HOOK_CERT_KEY_PATH": str(chain.with_name("privkey.pem")),
    },
    "acme.sh": lambda chain: {
        "CERT_PATH": str(chain.with_name("shop.acme.test.cer")),
        "CERT_KEY_PATH": str(chain.with_name("privkey.pem")),
        "CA_CERT_PATH": str(chain.with_name("ca.cer")),
        "CERT_FULLCHAIN_PATH": str(chain),
        "Le_Domain": "shop.acme.test",
    },
}


@pytest.mark.parametrize("client", TOLD)
def test_the_hook_installs_a_pinned_key_of_this_site_and_no_other(client: str, shop: Shop, tmp_path: Path) -> None:
    script, good = hook(client.partition(" ")[0], shop, tmp_path), installed(shop)

    def run(chain: Path) -> subprocess.CompletedProcess[str]:
        """As acme.sh does: in the folder of the certificate, where a folder is called as our package is."""
        (chain.parent / "dynpin").mkdir(exist_ok=True)
        (chain.parent / "dynpin" / "__init__.py").write_text("raise SystemExit('a stranger')")
        told = [f"{name}={value}" for name, value in TOLD[client](chain).items()]
        command = ["env", "-i", "PATH=/usr/bin:/bin", *told, "/bin/sh", "-c", 'cd "$0" && eval "$1"']
        called = [*command, str(chain.parent), str(script)]
        return subprocess.run(called, capture_output=True, text=True, check=False, timeout=300)

    key = new_key()
    stopped = run(shop.renewed(shop.authority.chain(key, Shop.HOST), key))
    assert (stopped.returncode, "STOP" in stopped.stdout, installed(shop)) == (1, True, good), stopped.stderr
    skipped = run(shop.renewed(shop.authority.chain(key, OTHER), key))
    assert (skipped.returncode, skipped.stdout, installed(shop)) == (0, "", good), skipped.stderr
    assert skipped.stderr.count("\n") == 1
    chain = shop.renewed(shop.authority.chain(shop.key, Shop.HOST))
    passed = run(chain)
    assert (passed.returncode, reloads(shop)) == (0, 1), passed.stderr
    assert installed(shop) == (chain.read_bytes(), chain.with_name("privkey.pem").read_bytes())


@pytest.mark.parametrize("client", ACME_CLIENTS)
def test_a_hook_that_no_client_starts_says_which_one_should(client: str, shop: Shop, tmp_path: Path) -> None:
    script = hook(client, shop, tmp_path)
    done = subprocess.run(["/bin/sh", script], env={}, capture_output=True, text=True, check=False)
    assert (done.returncode != 0, f"{client} sets it" in done.stderr) == (True, True), done.stderr


def test_a_hook_names_everything_by_its_whole_path(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.folder)
    script = dynpin("guard", "--hook", "lego", "--install", "tls").stdout
    for path in (shop.inventory, shop.folder / "dynpin-history.json", shop.tls):
        assert f"'{path}'" in script
    assert os.path.isabs(script.splitlines()[-1].split()[1])  # noqa: PTH117 - what the shell is to run


def test_a_hook_that_could_never_work_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = dynpin("guard", "--hook", "certbot")
    assert (refused.exit_code, refused.stdout, "--inventory" in refused.stderr) == (2, "", True)
    (tmp_path / "dynpin.toml").write_text("hosts = [")
    assert (broken := dynpin("guard", "--hook", "certbot")).exit_code == 2
    assert "dynpin.toml" in broken.stderr


def test_a_hook_for_a_folder_that_the_header_does_not_follow(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.folder)
    elsewhere = shop.folder / "served"
    assert f"does not name {elsewhere}/fullchain.pem" in dynpin("guard", "--hook", "lego", "--install", "served").stderr
    assert dynpin("guard", "--hook", "lego", "--install", "./tls").stderr == ""
    elsewhere.symlink_to(shop.tls)
    assert dynpin("guard", "--hook", "lego", "--install", "served").stderr == ""


@pytest.mark.parametrize(("client", "said"), [("dehydrated", ", ".join(ACME_CLIENTS)), ("caddy", "Without a plugin")])
def test_another_client_is_refused(client: str, said: str, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.folder)
    result = dynpin("guard", "--hook", client)
    assert (result.exit_code, said in result.stderr) == (2, True)
