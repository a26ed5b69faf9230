"""Certificate and key are installed together, or not at all; nothing happens twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from dynpin.deploy import locks
from dynpin.deploy.install import InstallError, install, needs_reload, reload
from tests.deploy.commands import dynpin
from tests.deploy.guard_certificates import Shop, new_key, private_pem

Pair = tuple[bytes, bytes]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    made = Shop(tmp_path / "with space")
    monkeypatch.chdir(made.folder)
    return made


def pair(shop: Shop, key: Any = None) -> Pair:
    chosen = key or shop.key
    return shop.authority.chain(chosen, Shop.HOST), private_pem(chosen)


def installed(folder: Path) -> Pair:
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "fullchain.pem", folder / "privkey.pem")
    return (folder / "fullchain.pem").read_bytes(), (folder / "privkey.pem").read_bytes()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def left_over(folder: Path) -> list[str]:
    """What is in the folder and beside it that nobody wants: files that were written aside."""
    own = {"fullchain.pem", "privkey.pem", ".reload-pending"}
    beside = [each.name for each in folder.parent.iterdir() if each.name.endswith(".link")]
    return sorted(beside + [each.name for each in folder.iterdir() if each.name not in own])


def test_a_new_folder_is_a_link_that_is_replaced_in_one_step(shop: Shop) -> None:
    folder = shop.folder / "served"
    first, second, third = pair(shop), pair(shop, shop.backup), pair(shop, shop.next)
    assert install(*first, folder, reloads=False)
    assert (folder.is_symlink(), installed(folder), left_over(folder)) == (True, first, [])
    assert [mode(folder / name) for name in ("fullchain.pem", "privkey.pem")] == [0o644, 0o600]
    assert mode(folder) == 0o755
    before = folder.readlink()
    assert install(*second, folder, reloads=False)
    assert (installed(folder), installed(shop.folder / before)) == (second, first)  # a person may go back to the first
    assert install(*third, folder, reloads=False)
    assert (installed(folder), (shop.folder / before).exists()) == (third, False)
    assert len(list(shop.folder.glob(".served-dynpin-*"))) == 2


@pytest.mark.parametrize("key_first", [True, False])
def test_a_chain_file_with_its_key_is_not_laid_open_to_all(key_first: bool, shop: Shop) -> None:
    chain, key = pair(shop)
    with pytest.raises(InstallError, match="has a private key in it too"):
        install(key + chain if key_first else chain + key, key, shop.folder / "served", reloads=False)
    assert not (shop.folder / "served").exists()


@pytest.mark.parametrize("folder", ["served", "tls"])
def test_the_same_pair_again_changes_nothing(folder: str, shop: Shop) -> None:
    target = shop.folder / folder
    same = pair(shop)
    assert install(*same, target, reloads=False)
    seen = [(each.stat().st_ino, each.stat().st_mtime_ns) for each in (target, *target.iterdir())]
    assert not install(*same, target, reloads=True)
    assert [(each.stat().st_ino, each.stat().st_mtime_ns) for each in (target, *target.iterdir())] == seen
    assert not needs_reload(target)


def test_a_key_that_others_may_read_is_put_right(shop: Shop) -> None:
    same = pair(shop)
    install(*same, shop.tls, reloads=False)
    (shop.tls / "privkey.pem").chmod(0o644)
    assert install(*same, shop.tls, reloads=False)
    assert mode(shop.tls / "privkey.pem") == 0o600


@pytest.mark.parametrize("folder", ["served", "tls"])
def test_a_pair_that_openssl_refuses_leaves_what_was_there(folder: str, shop: Shop) -> None:
    target = shop.folder / folder
    good = pair(shop)
    install(*good, target, reloads=False)
    chain, _ = pair(shop, shop.backup)
    with pytest.raises(InstallError, match="nothing is installed"):
        install(chain, private_pem(new_key()), target, reloads=True)
    assert (installed(target), left_over(target), needs_reload(target)) == (good, [], False)
    assert len(list(shop.folder.glob(".served-dynpin-*"))) == (folder == "served")


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    "raised", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "signal"]
)
def test_a_plain_folder_is_rolled_back(
    number: int, raised: BaseException, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = installed(shop.tls)
    renames = 0
    rename = Path.replace

    def failing(self: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        moved = None if isinstance(raised, OSError) and renames == number else rename(self, target)
        if renames == number:
            raise raised
        assert moved is not None
        return moved

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises((InstallError, KeyboardInterrupt)):
        install(*pair(shop, shop.backup), shop.tls, reloads=True)
    assert (installed(shop.tls), left_over(shop.tls), needs_reload(shop.tls)) == (good, [], False)
    assert mode(shop.tls / "privkey.pem") == 0o600


@pytest.mark.parametrize("is_new", [True, False])
def test_what_a_killed_process_left_in_a_plain_folder_is_removed(is_new: bool, shop: Shop) -> None:
    left = shop.tls / ".dynpin-ab12cd_9"
    left.mkdir()
    (left / "privkey.pem.before").write_bytes(private_pem(shop.key))
    (shop.tls / ".dynpin-notes").mkdir()  # somebody else's
    good = pair(shop)
    if not is_new:
        for name, data in zip(("fullchain.pem", "privkey.pem"), good, strict=True):
            (shop.tls / name).write_bytes(data)
        (shop.tls / "privkey.pem").chmod(0o600)
    assert install(*good, shop.tls, reloads=False) is is_new
    assert left_over(shop.tls) == [".dynpin-notes"]


def test_an_empty_plain_folder_is_empty_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shop.folder / "empty"
    folder.mkdir()
    rename = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if target.name == "fullchain.pem":
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(InstallError, match="No space left on device"):
        install(*pair(shop), folder, reloads=True)
    assert list(folder.iterdir()) == []


def test_a_link_always_leads_to_a_pair(shop: Shop) -> None:
    folder = shop.folder / "served"
    pairs = [pair(shop), pair(shop, shop.backup)]
    install(*pairs[0], folder, reloads=False)
    ended = threading.Event()
    seen: set[Pair] = set()
    missing: list[OSError] = []

    def read() -> None:
        while not ended.is_set():
            # What a server opens; the folder before the one before may be gone when it is slow.
            with contextlib.suppress(FileNotFoundError):
                seen.add(installed(folder.resolve()))

    def look() -> None:
        while not ended.is_set():
            try:
                folder.readlink()
            except OSError as error:
                missing.append(error)

    threads = [threading.Thread(target=read), threading.Thread(target=look)]
    for thread in threads:
        thread.start()
    for number in range(40):
        install(*pairs[(number + 1) % 2], folder, reloads=False)
    ended.set()
    for thread in threads:
        thread.join()
    assert missing == []
    assert seen
    assert seen <= set(pairs)


def test_what_would_be_left_behind_stops_a_switch(shop: Shop) -> None:
    folder = shop.folder / "served"
    good = pair(shop)
    install(*good, folder, reloads=False)
    (folder / "dhparam.pem").write_text("mine")
    with pytest.raises(InstallError, match=r"dhparam\.pem"):
        install(*pair(shop, shop.backup), folder, reloads=False)
    assert installed(folder) == good


def test_a_link_of_somebody_else_is_written_through(shop: Shop) -> None:
    link = shop.folder / "link"
    link.symlink_to(shop.tls)
    new = pair(shop, shop.backup)
    assert install(*new, link, reloads=False)
    assert (link.readlink(), installed(shop.tls)) == (shop.tls, new)


def test_files_that_are_links_are_replaced_and_not_written_through(shop: Shop) -> None:
    # As in a folder that once pointed into certbot's.
    live = shop.folder / "live"
    shop.tls.rename(live)
    shop.tls.mkdir()
    for name in ("fullchain.pem", "privkey.pem"):
        (shop.tls / name).symlink_to(live / name)
    before, new = installed(live), pair(shop, shop.backup)
    install(*new, shop.tls, reloads=False)
    assert (installed(live), installed(shop.tls)) == (before, new)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("folder", ["served", "tls"])
def test_the_owner_stays(folder: str, shop: Shop) -> None:
    target = shop.folder / folder
    install(*pair(shop), target, reloads=False)
    for path in (target.resolve(), target / "fullchain.pem", target / "privkey.pem"):
        os.chown(path, 1234, 4321)
    install(*pair(shop, shop.backup), target, reloads=False)
    for path in (target.resolve(), target / "fullchain.pem", target / "privkey.pem"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


def test_a_folder_that_cannot_be_made(shop: Shop) -> None:
    with pytest.raises(InstallError, match="No such file or directory"):
        install(*pair(shop), shop.folder / "none" / "served", reloads=False)


# -- the reload -------------------------------------------------------------------------------------------------------


def test_a_reload_is_bounded_and_what_it_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    assert reload(f"sleep 300 & echo $! > {tmp_path}/started", tmp_path) is None
    os.kill(int((tmp_path / "started").read_text()), signal.SIGTERM)
    failed = reload("sleep 300", tmp_path, seconds=0.05)
    assert failed == "it did not end within 0.05 seconds"
    assert reload("echo broken >&2; exit 7", tmp_path) == "exit code 7: broken"


def test_a_reload_finds_an_administrator_s_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert reload(f'echo "$PATH" > {tmp_path}/path', tmp_path) is None
    assert "/usr/sbin" in (tmp_path / "path").read_text().split(":")


def test_the_command_installs_and_reloads_once(shop: Shop) -> None:
    renewed = shop.renewed(shop.authority.chain(shop.key, Shop.HOST))
    arguments = ("guard", str(renewed), "--install", "tls", "--reload", f"echo reload >> '{shop.folder}/reloads'")
    told = dynpin(*arguments)
    assert (told.exit_code, "installed in tls" in told.stdout) == (0, True), told.output
    again = dynpin(*arguments, "--json")
    seen = json.loads(again.stdout)
    assert (seen["ok"], seen["installed"], seen["reloaded"]) == (True, False, False)
    assert (shop.folder / "reloads").read_text() == "reload\n"
    assert (shop.tls / "fullchain.pem").read_bytes() == renewed.read_bytes()


def test_a_reload_that_fails_is_told_and_repeated(shop: Shop) -> None:
    renewed = shop.renewed(shop.authority.chain(shop.key, Shop.HOST))
    script = shop.folder / "reload.sh"
    script.write_text("echo nginx: broken >&2\nexit 5\n")
    arguments = ("guard", str(renewed), "--install", "served", "--reload", f"sh '{script}'")
    failed = dynpin(*arguments)
    assert (failed.exit_code, "exit code 5: nginx: broken" in failed.stderr) == (1, True)
    # The pair stays: it was found good, and the server's next start takes it.
    assert installed(shop.folder / "served")[0] == renewed.read_bytes()
    seen = json.loads(dynpin(*arguments, "--json").stdout)
    assert [reason["code"] for reason in seen["reasons"]] == ["not-reloaded"]
    script.write_text(f"echo done > '{shop.folder}/reloads'\n")
    repeated = dynpin(*arguments)
    assert (repeated.exit_code, "reloaded" in repeated.stdout) == (0, True)
    assert (shop.folder / "reloads").read_text() == "done\n"
    (shop.folder / "reloads").unlink()
    assert dynpin(*arguments).exit_code == 0
    assert not (shop.folder / "reloads").exists()


def test_what_the_guard_refuses_is_not_installed(shop: Shop) -> None:
    good = installed(shop.tls)
    new = new_key()
    renewed = shop.renewed(shop.authority.chain(new, Shop.HOST), new)
    stopped = dynpin("guard", str(renewed), "--install", "tls", "--reload", f"touch '{shop.folder}/reloads'")
    assert (stopped.exit_code, "STOP" in stopped.stdout) == (1, True)
    assert (installed(shop.tls), (shop.folder / "reloads").exists()) == (good, False)


def test_a_certificate_of_another_site_is_skipped_by_a_hook_and_refused_by_hand(shop: Shop) -> None:
    good = installed(shop.tls)
    other = new_key()
    renewed = shop.renewed(shop.authority.chain(other, "api.acme.test"), other)
    skipped = dynpin("guard", str(renewed), "--install", "tls", "--skip-other-sites")
    assert (skipped.exit_code, skipped.stdout) == (0, "")
    assert "is for api.acme.test, and this site is shop.acme.test" in skipped.stderr
    assert dynpin("guard", str(renewed), "--install", "tls").exit_code == 1
    # One that is for this site too is not another site's.
    both = shop.renewed(shop.authority.chain(other, "api.acme.test", Shop.HOST), other)
    assert dynpin("guard", str(both), "--install", "tls", "--skip-other-sites").exit_code == 1
    assert installed(shop.tls) == good


def test_another_site_is_skipped_whatever_is_the_matter_with_this_one(shop: Shop) -> None:
    (shop.tls / "fullchain.pem").unlink()
    renewed = shop.renewed(shop.authority.chain(new_key(), "api.acme.test"))
    assert dynpin("guard", str(renewed), "--install", "tls", "--skip-other-sites").exit_code == 0


@pytest.mark.parametrize("other", ["of another kind", "of another host"])
def test_a_chain_that_replaces_another_one_of_the_site_is_not_installed_over_this_one(other: str, shop: Shop) -> None:
    # An ACME client calls the hook of each folder for each of its certificates.
    kind = ec.SECP384R1() if other == "of another kind" else ec.SECP256R1()
    key, host = ec.generate_private_key(kind), Shop.HOST if other == "of another kind" else "api.acme.test"
    (shop.folder / "other.pem").write_bytes(shop.authority.chain(key, host))
    text = shop.inventory.read_text().replace('"tls/fullchain.pem"', '"tls/fullchain.pem", "other.pem"')
    shop.inventory.write_text(text.replace('["shop.acme.test"]', f'["shop.acme.test", "{host}"]'))
    good = installed(shop.tls)
    renewed = shop.renewed(shop.authority.chain(key, host), key)
    skipped = dynpin("guard", str(renewed), "--install", "tls", "--skip-other-sites", "--json")
    assert (skipped.exit_code, json.loads(skipped.stdout)) == (0, {"ok": True, "skipped": True}), skipped.output
    assert "other.pem, and not tls/fullchain.pem" in skipped.stderr
    stopped = dynpin("guard", str(renewed), "--install", "tls", "--json")
    assert [each["code"] for each in json.loads(stopped.stdout)["reasons"]] == ["replaces-another-chain"]
    assert (stopped.exit_code, installed(shop.tls)) == (1, good)
    own = dynpin("guard", str(shop.renewed(pair(shop)[0])), "--install", "tls", "--skip-other-sites")
    assert (own.exit_code, installed(shop.tls) != good) == (0, True), own.output


@pytest.mark.parametrize("key", ["key", "backup"])
@pytest.mark.parametrize("known_by", ["dynpin.toml", "history"])
def test_a_certificate_of_a_key_of_this_site_that_lost_its_host_is_not_skipped(
    key: str, known_by: str, shop: Shop
) -> None:
    assert dynpin("rotate", "record").exit_code == 0
    if known_by == "history":
        shop.inventory.unlink()
    own = getattr(shop, key)
    renewed = shop.renewed(shop.authority.chain(own, "www2.acme.test"), own)
    stopped = dynpin("guard", str(renewed), "--install", "tls", "--skip-other-sites")
    assert stopped.exit_code == 1, stopped.output
    assert "is for www2.acme.test, not for shop.acme.test" in stopped.stdout
    assert "If two sites share the key" in stopped.stdout


def test_two_hooks_at_the_same_time(shop: Shop) -> None:
    folder = shop.folder / "served"
    pairs = [pair(shop), pair(shop, shop.backup)]
    run = (
        "import sys, pathlib\nfrom dynpin.deploy.install import install\n"
        "chain, key, folder = map(pathlib.Path, sys.argv[1:])\n"
        "for _ in range(20): install(chain.read_bytes(), key.read_bytes(), folder, reloads=False)\n"
    )
    processes = []
    for number, (chain, key) in enumerate(pairs):
        files = [shop.folder / f"{number}-{name}.pem" for name in ("chain", "key")]
        for file, data in zip(files, (chain, key), strict=True):
            file.write_bytes(data)
        processes.append(subprocess.Popen([sys.executable, "-c", run, *map(str, files), str(folder)]))
    assert [process.wait(300) for process in processes] == [0, 0]
    assert installed(folder) in pairs


def test_a_hook_does_not_wait_for_ever_for_another_program(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    folder = shop.folder / "served"
    with (
        locks.locked(shop.folder, shop.folder / "unused", "a test"),
        pytest.raises(InstallError, match=r"nothing is installed in .*served: another command is changing"),
    ):
        install(*pair(shop), folder, reloads=False)
    assert install(*pair(shop), folder, reloads=False)


def test_a_pipe_in_the_place_of_a_file_is_told(shop: Shop) -> None:
    (shop.tls / "privkey.pem").unlink()
    os.mkfifo(shop.tls / "privkey.pem")
    with pytest.raises(InstallError, match=r"privkey\.pem: nothing writes to this pipe"):
        install(*pair(shop), shop.tls, reloads=False)
