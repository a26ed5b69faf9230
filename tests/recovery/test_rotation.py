"""A rotation, the guard and an emergency of a site with a signed list: the list is signed, and seen to be signed."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from dynpin import Pin, PublicKeyPins
from dynpin.deploy.rotation import (
    Deployed,
    History,
    Listed,
    ListSight,
    NotSeen,
    Published,
    Sight,
    Stage,
    done,
    emergency,
    status,
)
from dynpin.recovery import Recovery
from tests.deploy.commands import dynpin
from tests.recovery.operator import Operator
from tests.recovery.publisher import Publisher

HOST, DAY = "bank.test", 86_400.0
A, B, C = (Pin(bytes([number]) * 32) for number in range(1, 4))
RECOVERY = Recovery(bytes(32), "https://list.test")


class Ground:
    """A folder with a site of two certificates from one CA, a key in reserve, and the list's operator."""

    def __init__(self, folder: Path) -> None:
        self.start = time.time()
        authority = trustme.CA()
        authority.cert_pem.write_to_path("ca.pem")
        for name in ("old", "new"):
            for pem in authority.issue_cert(HOST).cert_chain_pems:
                pem.write_to_path(f"{name}.pem", append=True)
        self.old, self.new, self.reserve = Pin.from_file(Path("old.pem")), Pin.from_file(Path("new.pem")), C
        self.operator = Operator(folder)
        self.uri = "https://list.test"

    def describe(self, keys: str, *backups: str) -> None:
        named = ", ".join([*(f'"{each}"' for each in backups), f'{{ pin = "{C}" }}'])
        root = self.operator.repository.recovery(self.uri).root_text
        Path("dynpin.toml").write_text(
            f'hosts = ["{HOST}"]\nkeys = ["{keys}"]\nbackups = [{named}]\nroots = ["ca.pem"]\n'
            f'[policy]\nmax_age = "1 day"\n[recovery]\nroot = "{root}"\nuri = "{self.uri}"\n'
        )

    def rotate(self, *arguments: str, days: float = 0.0) -> tuple[int, str]:
        at = datetime.fromtimestamp(self.start + days * DAY, UTC).isoformat()
        result = dynpin("rotate", *arguments, "--now", at)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    def next(self, days: float = 0.0, place: str | None = None) -> tuple[int, str]:
        return self.rotate("next", "--done", "--list", place or str(self.operator.www), days=days)


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.chdir(tmp_path)
    return Ground(tmp_path)


def test_a_rotation_signs_the_list_before_the_new_key_and_after_the_old_one(ground: Ground) -> None:
    ground.describe("old.pem")
    ground.operator.sign({HOST: (ground.old, C)})
    assert ground.rotate("record")[0] == 0
    code, said = ground.rotate("plan", "--to", "new.pem", "--start")
    order = [f"{number}. {name}" for number, name in enumerate(("publish", "sign", "deploy", "retire", "sign"), 1)]
    assert (code, all(each in said for each in order)) == (0, True), said
    ground.describe("old.pem", "new.pem")
    code, said = ground.next()
    assert (code, "dynpin recovery sign dynpin.toml" in said) == (0, True), said
    # Yesterday's list lacks the new key, so nothing is recorded.
    code, said = ground.next()
    assert (code, f"does not name {ground.new}" in said, "nothing is recorded" in said) == (1, True, True), said
    ground.operator.sign({HOST: (ground.old, ground.new, C)})
    code, said = ground.next()
    assert (code, "deploy: not before" in said) == (0, True), said
    ground.describe("new.pem", "old.pem")
    code, said = ground.next(1.1)
    assert (code, "retire" in said) == (0, True), said
    ground.describe("new.pem")
    code, said = ground.next(2.2)
    assert (code, "1. sign: now" in said) == (0, True), said
    code, said = ground.next(2.3)
    assert (code, f"names {ground.old}, which the header does not name" in said) == (1, True), said
    ground.operator.sign({HOST: (ground.new, C)})
    code, said = ground.next(2.4)
    assert (code, "steady" in said) == (0, True), said


def test_the_list_is_read_from_the_uri_in_the_header(ground: Ground) -> None:
    with Publisher(ground.operator.www) as publisher:
        ground.uri = publisher.uri
        ground.describe("old.pem", "new.pem")
        assert ground.rotate("record")[0] == 0
        assert ground.rotate("plan", "--to", "new.pem", "--start")[0] == 0
        code, said = ground.rotate("next", "--done")
        assert (code, f"{publisher.uri}: no client believes the list" in said) == (1, True), said
        ground.operator.sign({HOST: (ground.old, ground.new, C)})
        code, said = ground.rotate("next", "--done")
        assert (code, "deploy" in said) == (0, True), said


def test_a_list_event_can_be_written_and_read() -> None:
    kept = History(HOST).with_event(Published(1.0, PublicKeyPins((A, B), 60))).with_event(Listed(2.0, (A, B)))
    assert History.from_json(kept.to_json()) == kept
    assert kept.with_event(Listed(3.0, (A, B))) == kept


def test_the_step_is_not_done_unless_the_list_was_looked_at() -> None:
    header = PublicKeyPins((A, B, C), 60, recovery=RECOVERY)
    kept = History(HOST).with_event(Published(1.0, header)).with_event(Deployed(1.0, (A,)))
    planned = [{"at": "2026-01-01T00:00:00Z", "event": "planned", "target": str(B), "backups": [str(C)]}]
    text = json.loads(kept.to_json())
    kept = History.from_json(json.dumps({**text, "events": text["events"] + planned}))
    now = kept.events[-1].at + 1
    assert status(kept, now).stage is Stage.SIGN
    sight = Sight("dynpin.toml", header, ((A,),))
    for listed in (None, ListSight("www"), ListSight("www", (A, B)), ListSight("www", (A, B, C), "it has expired")):
        with pytest.raises(NotSeen):
            done(kept, [sight], now, listed=listed)
    assert status(done(kept, [sight], now, listed=ListSight("www", (C, B, A))), now).stage is not Stage.SIGN


def test_a_history_without_the_root_is_reported(ground: Ground) -> None:
    ground.describe("old.pem")
    assert ground.rotate("record")[0] == 0
    described = Path("dynpin.toml").read_text()
    Path("dynpin.toml").write_text(described.partition("[recovery]")[0])
    code, said = ground.rotate("status")
    assert (code, "it names no recovery root" in said) == (1, True), said


# -- guard ------------------------------------------------------------------------------------------------------------


def _guard(*arguments: str) -> tuple[int, str]:
    result = dynpin("guard", *arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_guard_stops_a_chain_that_the_list_refuses(ground: Ground) -> None:
    ground.describe("old.pem", "new.pem")
    assert ground.rotate("record")[0] == 0
    ground.operator.sign({HOST: (ground.old, C)})
    place = ["--list", str(ground.operator.www)]
    code, said = _guard("new.pem", *place)
    assert (code, "names no key of this chain" in said, "dynpin recovery sign" in said) == (1, True, True), said
    code, said = _guard("old.pem", "--json", *place)
    answer = json.loads(said[said.index("{") :])
    assert (code, answer["ok"]) == (0, True), said
    assert any(f"the list lacks {ground.new}" in each for each in answer["warnings"]), answer
    ground.operator.sign({HOST: (ground.old, ground.new, C)})
    code, said = _guard("new.pem", *place)
    assert (code, "Warning" in said) == (0, False), said
    code, said = _guard("new.pem")
    assert (code, "Not seen: whether the signed list accepts this chain" in said) == (0, True), said
    code, said = _guard("new.pem", "--list", "nowhere")
    assert (code, "there is no folder nowhere" in said) == (2, True), said


# -- emergencies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "keys", "steps"),
    [
        ("key-lost", [B], ["deploy", "silence", "sign", "replenish"]),
        ("key-compromised", [B], ["deploy", "silence", "sign", "revoke", "replenish"]),
        ("key-lost", [], ["search", "deploy-new", "sign", "pin-again", "tell"]),
        ("key-compromised", [], ["search", "deploy-new", "sign", "pin-again", "tell"]),
    ],
)
def test_an_emergency_leads_to_a_signed_list(kind: str, keys: list[Pin], steps: list[str]) -> None:
    header = PublicKeyPins((A, B), 86_400, recovery=RECOVERY)
    kept = History(HOST).with_event(Published(1.0, header)).with_event(Deployed(1.0, (A,)))
    found = emergency(kind, kept, keys, 2.0)  # type: ignore[arg-type]  # one of the kinds
    assert [each.name for each in found] == steps
    sign = next(each for each in found if each.name == "sign")
    assert "dynpin recovery sign dynpin.toml" in sign.what
    assert "dynpin recovery publish FOLDER" in sign.what
    assert (f"not {A}" in sign.what) is (kind == "key-compromised")


def test_an_emergency_without_a_list_has_no_such_step() -> None:
    kept = History(HOST).with_event(Published(1.0, PublicKeyPins((A, B), 86_400))).with_event(Deployed(1.0, (A,)))
    assert "sign" not in [each.name for each in emergency("key-lost", kept, [B], 2.0)]
