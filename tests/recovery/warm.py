"""Imported by the process that tests/recovery/killing.py forks from: what commands import and build is there then."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from dynpin import Pin
from tests.deploy.commands import dynpin

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    typed = ("--in", str(folder / "recovery"), "--passphrase-file", str(folder / "passphrase"))
    (folder / "passphrase").write_text("correct horse battery")
    (folder / "passphrase").chmod(0o600)
    (folder / "list.json").write_text(json.dumps([{"host": "a.test", "pins": [str(Pin(bytes(32)))], "max_age": 60}]))
    dynpin("recovery", "init", *typed)
    dynpin("recovery", "sign", str(folder / "list.json"), "--yes", *typed)
    dynpin("recovery", "publish", str(folder / "www"), *typed[:2])
    dynpin("recovery", "status", *typed[:2])
