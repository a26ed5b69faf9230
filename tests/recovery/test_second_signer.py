"""Who adds a signature sees what for; and what is damaged in a folder keeps no good key from signing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dynpin import Pin
from tests.deploy.commands import dynpin
from tests.recovery.test_copies import A, B, Office


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def _flip(file: Path) -> None:
    """Damage the signatures in a file, and nothing else."""
    signed = json.loads(file.read_bytes())
    for each in signed["signatures"]:
        each["sig"] = "00" * 64
    file.write_text(json.dumps(signed))


def test_a_list_of_somebody_else_is_shown_and_asked_for(office: Office) -> None:
    assert office.sign(B, *office.key(3)).exit_code == 0
    asked = office.do("sign", *office.key(1))
    assert (asked.exit_code, f"+ bank.test {B}" in asked.output, f"- bank.test {A}" in asked.output) == (2, True, True)
    assert "give --yes" in asked.output
    assert "needs 1 more signature" in office.do("status").output
    assert office.do("sign", "--yes", *office.key(1)).exit_code == 0
    assert office.publish().exit_code == 0
    assert office.seen() == B


def test_a_root_of_somebody_else_is_shown_and_asked_for(office: Office) -> None:
    office.copies("thief")
    thief = "--key", str(office.folder / "thief" / "keys" / "root-1.v1.key.pem")
    assert office.do("rotate-keys", "targets", "--threshold", "1", "--of", "1", *thief, copy="thief").exit_code == 0
    asked = office.do("sign", "--with", str(office.folder / "thief"))
    assert asked.exit_code == 2
    assert "~ keys of targets: 1 of 1, 1 new, 3 gone; it was 2 of 3" in asked.output
    # A list of one's own is asked for together with the root that waits.
    assert "~ keys of targets" in office.sign(B).output


def test_a_list_that_is_not_the_one_that_waits_is_not_shown_as_it(office: Office) -> None:
    assert office.sign(B, *office.key(3)).exit_code == 0
    pending = office.folder / "recovery" / "pending"
    data = next(pending.glob("*.pins.json"))
    shown = next((office.www / "targets").glob("*.pins.json")).read_bytes()
    data.write_bytes(shown)
    refused = office.do("sign", "--yes", *office.key(1))
    assert (refused.exit_code, str(data) in refused.output, "is not the list that waits" in refused.output) == (
        2,
        True,
        True,
    )
    # What the message says leads on.
    (pending / "targets.json").unlink()
    assert office.sign(B).exit_code == 0
    assert office.publish().exit_code == 0
    assert office.seen() == B


def test_a_signature_that_is_wrong_is_made_again(office: Office) -> None:
    assert office.sign(B, *office.key(3)).exit_code == 0
    office.copies("damaged")
    for copy in ("recovery", "damaged"):
        _flip(office.folder / copy / "pending" / "targets.json")
    assert office.do("sign", "--yes", "--with", str(office.folder / "damaged"), *office.key(3)).exit_code == 0
    assert office.do("sign", "--yes", *office.key(1)).exit_code == 0
    assert office.publish().exit_code == 0
    assert office.seen() == B


def test_a_wrong_signature_of_another_copy_is_not_taken(office: Office) -> None:
    assert office.sign(B, *office.key(3)).exit_code == 0
    office.copies("damaged")
    assert office.do("sign", "--yes", *office.key(2), copy="damaged").exit_code == 0
    _flip(office.folder / "damaged" / "pending" / "targets.json")
    refused = office.do("sign", "--yes", "--with", str(office.folder / "damaged"), *office.key(3))
    assert (refused.exit_code, "none of these keys adds a signature" in refused.output) == (1, True)
    assert office.do("sign", "--yes", *office.key(2)).exit_code == 0
    assert office.publish().exit_code == 0


def test_new_keys_that_are_signed_already_are_published(office: Office) -> None:
    assert office.do("rotate-keys", "timestamp").exit_code == 0
    again = office.do("rotate-keys", "timestamp")  # as after a kill, when nobody saw the first answer
    assert again.exit_code == 1
    assert (
        "version 2 of the root is signed by enough keys: `dynpin recovery publish FOLDER` puts it in place"
        in again.output
    )
    assert office.publish().exit_code == 0


def test_two_files_that_differ_about_a_host_make_no_list(office: Office) -> None:
    tables: list[Path] = []
    for name, pin in ("one", A), ("two", B):
        tables.append(office.folder / f"{name}.json")
        tables[-1].write_text(json.dumps([{"host": "bank.test", "pins": [str(pin)], "max_age": 60}]))
    refused = office.do("sign", *map(str, tables), "--yes")
    assert refused.exit_code == 2
    assert "one.json" in refused.output
    assert "two.json disagree about bank.test" in refused.output
    assert office.do("sign", str(tables[0]), str(tables[0]), "--yes").exit_code == 0


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json", "targets/LIST"])
@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_damaged_file_is_copied_from_the_published_folder(name: str, damage: str, office: Office) -> None:
    listed = next((office.www / "targets").glob("*.pins.json")).name
    file = office.folder / "recovery" / "public" / name.replace("LIST", listed)
    file.write_bytes(file.read_bytes()[:10]) if damage == "cut" else file.unlink()
    taken = office.do("catch-up", str(office.www))
    assert (taken.exit_code, f"{file} was copied" in taken.output) == (0, True)
    assert office.sign(B).exit_code == 0
    assert office.publish().exit_code == 0
    assert office.seen() == B


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["7.targets.json", "7.snapshot.json", "2.root.json", "timestamp.json"])
def test_a_pipe_or_an_endless_file_in_the_served_folder_holds_up_nothing(name: str, office: Office) -> None:
    laid_down = office.www / name
    for endless in (False, True):
        laid_down.unlink(missing_ok=True)
        if endless:
            laid_down.symlink_to("/dev/zero")
        else:
            os.mkfifo(laid_down)
        assert office.refresh().exit_code in (0, 1)
        assert office.do("status").exit_code in (0, 1)
    laid_down.unlink(missing_ok=True)
    assert office.refresh().exit_code == 0


def test_a_command_that_was_killed_after_its_work_is_run_again(office: Office) -> None:
    assert office.sign(B).exit_code == 0
    again = office.sign(B)
    assert (again.exit_code, "is signed by enough keys" in again.output) == (0, True)


def test_a_list_that_clients_do_not_read_is_not_signed(office: Office) -> None:
    table = office.folder / "many.jsonl"
    pins = [str(Pin(bytes([number]) * 32)) for number in range(64)]
    entries = [{"host": f"h{number}.bank.test", "pins": pins, "max_age": 60} for number in range(3000)]
    table.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    refused = office.do("sign", str(table), "--yes")
    assert (refused.exit_code, "but the limit is 8000000" in refused.output) == (2, True)
    assert office.do("status").exit_code == 0
    assert office.sign(B).exit_code == 0
    assert office.publish().exit_code == 0
    assert office.seen() == B


@pytest.mark.parametrize("name", [".", "recovery", "recovery/keys"])
def test_keys_are_not_published(name: str, office: Office) -> None:
    refused = office.do("publish", str(office.folder / name))
    assert (refused.exit_code, "a web server would hand out the keys" in refused.output) == (1, True)
    assert not (office.folder / name / "timestamp.json").exists()


def test_a_folder_whose_name_is_no_text_is_named(office: Office) -> None:
    said = office.do("publish", os.fsdecode(os.fsencode(office.folder / "www-") + b"\xe9"))
    assert (said.exit_code, "bytes in its name that are not UTF-8" in said.output) == (2, True)


def test_a_site_that_only_reports_is_told_what_its_list_does(office: Office) -> None:
    (office.folder / "tls").mkdir()
    assert dynpin("lab", "ca", str(office.folder / "tls"), "www.example.test").exit_code == 0
    typed = "--passphrase-file", str(office.folder / "passphrase")
    made = dynpin("init", str(office.folder / "tls" / "fullchain.pem"), "--out", str(office.folder), *typed)
    assert made.exit_code == 0, made.output
    file = office.folder / "dynpin.toml"
    assert office.do("sign", str(file), "--yes").exit_code == 0
    reporting = '[policy]\nmode = "report-only"\nreport_uri = "https://reports.example.test/"'
    file.write_text(file.read_text().replace("[policy]", reporting))
    said = office.do("sign", str(file), "--yes").output
    assert "is report-only; a client that takes or follows the list refuses other keys" in said
