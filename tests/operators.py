"""What pages have for the machines of operators: each kind of file is checked by the program that reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import trustme

__all__ = ["CHECKS", "check"]

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def check(language: str, text: str) -> None:
    """Check a file of the page; AssertionError where its program would not have it. Without that, it is let pass."""
    with tempfile.TemporaryDirectory() as folder:
        CHECKS[language](text, Path(folder))


def _run(*command: str) -> str:
    """What a checker says; nothing where it is not installed."""
    if shutil.which(command[0], path=_PATH) is None:
        return ""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env={"PATH": _PATH, "LC_ALL": "C"}
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{command[0]}: {said}"
    return said


def _name(text: str) -> str:
    """The name of a file, whose path is its first line."""
    first = re.match(r"# (/[^\s]+)\n", text)
    assert first, "the first line says where the file belongs, as in  # /etc/systemd/system/dynpin-collector.service"
    return Path(first[1]).name


def _systemd(text: str, folder: Path) -> None:
    name = _name(text)
    if name.endswith(".env"):
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        # Single quotes: systemd reads this file, and so does a shell, which would replace a `$` in other ones.
        assert all(re.fullmatch(r"[A-Z_]+='[^']*'", line) for line in lines), text
        return
    # What it starts need not be installed here; what a timer starts must be there.
    unit = folder / name
    unit.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text))
    if name.endswith(".timer"):
        unit.with_suffix(".service").write_text("[Service]\nType=oneshot\nExecStart=/bin/true\n")
    # It ends with 0, and says what it has ignored.
    said = _run("systemd-analyze", "verify", "--man=no", str(unit))
    assert not said, said


def _logrotate(text: str, folder: Path) -> None:
    file = folder / _name(text)
    file.write_text(text)
    file.chmod(0o644)
    said = _run("logrotate", "--debug", "--state", str(folder / "state"), str(file))
    assert "error:" not in said, said


def _haproxy(text: str, folder: Path) -> None:
    _name(text)
    certificate = folder / "pins.pem"
    trustme.CA().issue_cert("pins.example").private_key_and_cert_chain_pem.write_to_path(certificate)
    file = folder / "haproxy.cfg"
    file.write_text(re.sub(r"(crt|ca-file) \S+", rf"\1 {certificate}", text))
    said = _run("haproxy", "-c", "-f", str(file))
    assert "WARNING" not in said.upper(), said


def _shell(text: str, folder: Path) -> None:
    # Commands for root on a machine of its own are read, and not run.
    file = folder / "commands"
    file.write_text(text)
    _run("bash", "-n", str(file))


CHECKS: dict[str, Callable[[str, Path], None]] = {
    "haproxy": _haproxy,
    "ini": _systemd,
    "logrotate": _logrotate,
    "sh": _shell,
}
