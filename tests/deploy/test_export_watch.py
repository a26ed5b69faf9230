"""`dynpin export --watch`: the header of a real proxy follows dynpin.toml, its key files and its ramp."""

from __future__ import annotations

import os
import select
import shlex
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dynpin import Pin, PublicKeyPins
from dynpin.deploy.export import HEADER_FORMATS
from dynpin.deploy.export_watch import IncludeFile, follow
from dynpin.lab.certificates import Authority, KeyPair
from tests.deploy.commands import dynpin
from tests.deploy.servers import CONFIGURATIONS, HOST, MODULES, Site, commands, fetch, program, reserved_port, running

FIRST = PublicKeyPins((Pin(b"a" * 32), Pin(b"b" * 32)), 300)
SECOND = PublicKeyPins((Pin(b"b" * 32), Pin(b"c" * 32)), 600)
# What the proxy's own configuration says to take the file in.
INCLUDES = {
    "nginx": "include {file};",
    "apache": "Include {file}",
    "caddy": "import {file}",
    "haproxy": (
        "http-after-response set-header Public-Key-Pins %[str(Public-Key-Pins),map({file})] "
        "if {{ ssl_fc }} {{ str(Public-Key-Pins),map({file}) -m found }}"
    ),
}


@dataclass
class World:
    """A site of which everything can change: its keys, its dynpin.toml."""

    folder: Path
    authority: Authority = field(default_factory=lambda: Authority("Test CA"))

    def __post_init__(self) -> None:
        self.site = Site(self.folder, *(self.folder / f"{name}.pem" for name in ("roots", "chain", "key", "both")))
        self.site.roots.write_bytes(self.authority.pem)
        self.inventory = self.folder / "dynpin.toml"

    def deploy(self, key: KeyPair) -> None:
        certificate = self.authority.issue(HOST, key)
        self.site.key.write_bytes(key.private_pem)
        self.site.both.write_bytes(key.private_pem + certificate.pem)
        self.site.chain.write_bytes(certificate.pem)

    def describe(self, *backups: KeyPair, max_age: str = "1 hour", more: str = "") -> None:
        names = []
        for key in backups:
            name = f"{key.name}.pub.pem"
            (self.folder / name).write_bytes(key.public_pem)
            names.append(f'"{name}"')
        self.inventory.write_text(
            f'hosts = ["{HOST}"]\nkeys = ["chain.pem"]\nbackups = [{", ".join(names)}]\nremember = "sent.txt"\n'
            f'[policy]\nmax_age = "{max_age}"\n{more}'
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# -- real proxies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", INCLUDES)
def test_the_header_of_a_real_proxy_follows_the_rotation(form: str, world: World, tmp_path: Path) -> None:
    binary = {"apache": "apache2"}.get(form, form)
    if program(binary) is None:
        pytest.skip(f"{binary} is not installed: apt-get install {binary}")
    first, second, third = (KeyPair(name, "site") for name in ("first", "second", "third"))
    world.deploy(first)
    world.describe(second)
    include, arguments = tmp_path / "pins.conf", ("--inventory", str(world.inventory))
    # Before the first start of the proxy, which finds no file otherwise.
    assert dynpin("export", form, "--watch", str(include), "--once", *arguments).exit_code == 0
    with reserved_port() as port, reserved_port() as admin:
        serve, reload = _proxy(form, world, include, port, admin)
        with running(serve, port, tmp_path):
            assert _shown(world.site, port) == (first.pin, [str(PublicKeyPins((first.pin, second.pin), 3600))])
            command = ["export", form, "--watch", str(include), "--reload", reload, *arguments]
            with _started(command) as following:
                world.describe(second, max_age="2 hours")
                _await(lambda: _shown(world.site, port)[1], [str(PublicKeyPins((first.pin, second.pin), 7200))])
                # The backup is deployed, and the next one made.
                world.deploy(second)
                world.describe(third, first, max_age="2 hours")
                rotated = PublicKeyPins((second.pin, third.pin, first.pin), 7200)
                _await(lambda: _shown(world.site, port), (second.pin, [str(rotated)]))
                following.terminate()
                out, err = following.communicate(timeout=120)
    assert (following.returncode, err) == (0, f"following {world.inventory}\n")
    assert [line.partition("max-age=")[2] for line in out.splitlines()] == ["7200", "7200"]


def _proxy(form: str, world: World, include: Path, port: int, admin: int) -> tuple[list[str], str]:
    """The command that serves, and the one that reloads."""
    folder, site = world.folder, world.site
    config = folder / "server.conf"
    lines = INCLUDES[form].format(file=include)
    text = CONFIGURATIONS[form].format(
        lines=lines, folder=folder, port=port, chain=site.chain, key=site.key, both=site.both, modules=MODULES
    )
    config.write_text(
        text.replace("master_process off;", "").replace("admin off", f"admin localhost:{admin}").rstrip(" ")
    )
    _, serve = commands(form, config)
    pid = shlex.quote(str(folder / "pid"))
    match form:
        case "haproxy":  # a master, which can be told to reload
            return [serve[0], "-W", "-db", "-p", str(folder / "pid"), "-f", str(config)], f"kill -USR2 $(cat {pid})"
        case "caddy":
            tail = f"--config {shlex.quote(str(config))} --adapter caddyfile --address localhost:{admin}"
            return serve, f"{serve[0]} reload {tail}"
        case _:
            return serve, f"kill -{'HUP' if form == 'nginx' else 'USR1'} $(cat {pid})"


def _shown(site: Site, port: int) -> tuple[Pin, list[str]]:
    """The key that the proxy shows, and the header that it sends."""
    leaf = ssl.get_server_certificate(("localhost", port), ca_certs=str(site.roots))
    return Pin.from_certificate(leaf.encode()), fetch(site, port, "/", "Public-Key-Pins")[1]


def _await(look: Callable[[], object], wanted: object) -> None:
    """Look until it is as wanted: another program tells nobody when it has reloaded."""
    pause, seen = threading.Event(), None
    for _ in range(1200):
        try:
            seen = look()
        except OSError:  # in the middle of a reload
            seen = None
        if seen == wanted:
            return
        pause.wait(0.1)
    raise AssertionError(f"{seen} is not {wanted}")


@contextmanager
def _started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "dynpin", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


# -- one look, as from cron --------------------------------------------------------------------------------------------


@pytest.fixture
def pinned(world: World) -> tuple[World, KeyPair, KeyPair]:
    first, second = KeyPair("first", "site"), KeyPair("second", "site")
    world.deploy(first)
    world.describe(second)
    return world, first, second


def _once(world: World, command: str | None = None, form: str = "nginx") -> tuple[int, str, str]:
    reload = () if command is None else ("--reload", command)
    file = str(world.folder / "pins.conf")
    result = dynpin("export", form, "--watch", file, "--once", "--inventory", str(world.inventory), *reload)
    return result.exit_code, result.stdout, result.stderr


def test_a_look_that_changes_nothing_reloads_nothing(pinned: tuple[World, KeyPair, KeyPair]) -> None:
    world, _, _ = pinned
    reloads = world.folder / "reloads"
    command = f"echo x >> {shlex.quote(str(reloads))}"
    assert [_once(world, command)[0] for _ in range(3)] == [0, 0, 0]
    assert reloads.read_text() == "x\n"


def test_a_reload_that_failed_is_tried_at_the_next_look(pinned: tuple[World, KeyPair, KeyPair]) -> None:
    world, _, _ = pinned
    code, out, err = _once(world, "echo no such server; exit 3")
    assert (code, out.count("max-age=3600")) == (1, 1)
    assert "exit code 3" in err
    assert "no such server" in err
    assert _once(world, "exit 4")[::2] == (1, "dynpin: the reload failed (exit 4): exit code 4\n")
    assert _once(world, "true") == (0, "", "")
    assert _once(world, "exit 5") == (0, "", "")


def test_a_deployed_key_that_was_not_pinned_takes_the_header_away(pinned: tuple[World, KeyPair, KeyPair]) -> None:
    world, first, _ = pinned
    assert _once(world)[0] == 0
    world.deploy(KeyPair("stranger", "site"))
    code, _, err = _once(world)
    assert (code, "locked out" in err) == (1, True)
    assert "add_header" not in (world.folder / "pins.conf").read_text()
    world.deploy(first)
    assert _once(world)[0] == 0
    assert str(first.pin) in (world.folder / "pins.conf").read_text()


def test_the_file_follows_the_ramp(pinned: tuple[World, KeyPair, KeyPair]) -> None:
    world, _, second = pinned
    report = 'report_uri = "http://127.0.0.1:9/r/TOKEN/enforce"\n[ramp]\n'
    world.describe(second, max_age="30 days", more=report)
    assert _once(world)[0] == 0
    assert "Public-Key-Pins-Report-Only" in (world.folder / "pins.conf").read_text()
    assert dynpin("ramp", "next", "--force", "--inventory", str(world.inventory)).exit_code == 0
    assert _once(world)[0] == 0
    assert "max-age=300;" in (world.folder / "pins.conf").read_text()
    told = dynpin("export", "nginx", "--inventory", str(world.inventory))
    assert (told.exit_code, "--watch FILE does" in told.stderr, "# max-age is" in told.stdout) == (0, True, True)
    chosen = dynpin("export", "nginx", "--inventory", str(world.inventory), "--max-age", "600")
    assert ("--watch" in chosen.stdout, "max-age=600;" in chosen.stdout) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("android", "--watch", "f"), "is for servers"),
        (("nginx", "--watch", "nowhere/f"), "nowhere is not a folder"),
        (("nginx", "--watch", "f", "--max-age", "60"), "follows only dynpin.toml"),
        (("nginx", "--once"), "need --watch"),
        (("nginx", "--reload", "true"), "need --watch"),
        (("nginx", "--watch", "f"), "dynpin.toml"),
        (("nginx", "--watch", "f", "--once", "--inventory", "forgetful.toml"), "no line remember"),
    ],
)
def test_wrong_usage(
    arguments: tuple[str, ...], said: str, pinned: tuple[World, KeyPair, KeyPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _, _ = pinned
    monkeypatch.chdir(world.folder)
    text = world.inventory.read_text().replace('remember = "sent.txt"\n', "")
    world.inventory.rename("forgetful.toml").write_text(text)
    result = dynpin("export", *arguments)
    assert (result.exit_code, said in result.stderr, result.stdout) == (2, True, ""), result.stderr
    assert not Path("f").exists()


# -- going on ----------------------------------------------------------------------------------------------------------


@dataclass
class Played:
    """A policy whose header changes by the clock, which `pause` moves."""

    headers: dict[float, PublicKeyPins | None]
    ends: float
    now: float = 0.0
    complaints: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])

    @property
    def header(self) -> PublicKeyPins | None:
        return self.headers[max(since for since in self.headers if since <= self.now)]

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def play(self, file: IncludeFile) -> None:
        follow(
            self,
            file,
            lambda: self.now >= self.ends,
            complain=lambda text: self.complaints.append((self.now, text)),
            pause=self.pause,
            clock=lambda: self.now,
        )


def test_one_line_and_one_reload_a_change(tmp_path: Path) -> None:
    said: list[str] = []
    reloads = tmp_path / "reloads"
    file = IncludeFile("caddy", tmp_path / "pins", f"echo x >> {shlex.quote(str(reloads))}", said.append)
    Played({0: FIRST, 5: SECOND, 7: None, 9: SECOND}, ends=20).play(file)
    shown = [str(FIRST), str(SECOND), None, str(SECOND)]
    assert said == [f"{tmp_path / 'pins'}: {f'Public-Key-Pins: {each}' if each else 'no header'}" for each in shown]
    assert reloads.read_text() == "x\n" * 4


def test_a_reload_that_fails_is_tried_again_ever_more_slowly_and_at_once_when_the_header_changes(
    tmp_path: Path,
) -> None:
    played = Played({0: FIRST, 100: SECOND}, ends=105)
    played.play(IncludeFile("nginx", tmp_path / "pins", "exit 7", lambda _: None))
    assert [at for at, _ in played.complaints] == [0, 10, 30, 70, 100]
    assert "exit code 7" in played.complaints[0][1]
    assert "again in 10 seconds" in played.complaints[0][1]
    later = Played({0: SECOND}, ends=1)
    later.play(IncludeFile("nginx", tmp_path / "pins", "exit 8", lambda _: None))
    assert "exit code 8" in later.complaints[0][1]  # a new process knows that the last reload failed


def test_a_reload_that_hangs_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command = f"exec 3>{shlex.quote(str(fifo))}; tail -f /dev/null & wait"
    file = IncludeFile("nginx", tmp_path / "pins", command, lambda _: None, limit=1.0)
    assert "it did not end within 1 second" in file.bring_up_to(FIRST)
    # The end of the file: neither the command nor what it started holds the other end any more.
    assert select.select([reader], [], [], 60)[0]
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_what_cannot_be_written_is_told_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins" / "x").touch()
    played = Played({0: FIRST}, ends=15)
    played.play(IncludeFile("nginx", tmp_path / "pins", None, lambda _: None))
    assert [at for at, _ in played.complaints] == [0, 10]
    assert "cannot be written" in played.complaints[0][1]
    dollar = PublicKeyPins(FIRST.pins, 300, report_uri="https://r.example.net/$x")
    refused = Played({0: dollar}, ends=1)
    refused.play(IncludeFile("nginx", tmp_path / "other", None, lambda _: None))
    assert "%24" in refused.complaints[0][1]


@pytest.mark.parametrize("form", HEADER_FORMATS)
def test_the_file_says_how_it_is_taken_in(form: str, tmp_path: Path) -> None:
    IncludeFile(form, tmp_path / "pins", None, lambda _: None).bring_up_to(FIRST)
    text = (tmp_path / "pins").read_text()
    assert text.startswith("# Written by dynpin export --watch")
    assert str(FIRST) in text.replace('\\"', '"')
    if form in INCLUDES:
        assert INCLUDES[form].format(file=tmp_path / "pins") in text
    assert (tmp_path / "pins").stat().st_mode & 0o777 == 0o644
