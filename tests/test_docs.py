"""Every code block of the README and the docs does what it says."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sybil import Example

from dynpin import Pin, PublicKeyPins
from dynpin.clientstore import PinStore
from dynpin.lab.network import TLSServer, loopback_names
from tests.database_machines import DatabaseMachines
from tests.deploy.acme_server import lacking
from tests.deploy.servers import program, reserved_port
from tests.documents import Blocks, examples_of
from tests.operators import check

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    # What Sphinx builds from elsewhere, generated pages too, is not a source.
    *sorted(
        file
        for file in (ROOT / "docs").rglob("*.md")
        if not {"_build", "faults", "commands", "collector-toml.md"} & set(file.parts)
    ),
]
HOST = "bank.test"
# Where a command of a document listens.
LISTENS = re.compile(
    r"(?:--(?:attacker-|listen-)?port |(?:--listen |istenAddress\": \")127\.0\.0\.1:|http-01-port = )(\d{4,5})\b"
)
# The programs that are not Python's, and that a page is followed with.
NEEDS = {"renewals.md": ("certbot", "pebble")}

# Every Python that a console block starts finds the names that this process finds.
_SITE_CUSTOMIZE = """
import json, pathlib
from dynpin.lab.network import loopback_names
class Routes(dict):
    # Looked up at each resolution, and never empty: what goes on running meets the hotspot too.
    def __bool__(self):
        return True
    def get(self, name, default=None):
        return json.loads(pathlib.Path({routes!r}).read_text()).get(name, default)
_names = loopback_names(Routes())
_names.__enter__()
"""


class Ground:
    """A reader's folder with key files in ``tls/``, and the site ``https://bank.test/`` that shows them.

    Both authorities are trusted: that of the site, and the one that gave the hotspot a certificate for its name.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.folder = base / "site"
        self.routes: dict[str, int] = {}
        authority, rogue = trustme.CA(), trustme.CA()
        self._write_keys(authority.issue_cert(HOST), (authority, rogue))
        self.site = TLSServer(self.certificate, headers=[("Public-Key-Pins", str(self.header()))])
        self.attacker = TLSServer(rogue.issue_cert(HOST))
        self.home()

    def _write_keys(self, certificate: trustme.LeafCert, authorities: Iterable[trustme.CA]) -> None:
        self.certificate = certificate
        tls = self.folder / "tls"
        tls.mkdir(parents=True)
        for authority in authorities:
            authority.cert_pem.write_to_path(tls / "roots.pem", append=True)
        certificate.private_key_pem.write_to_path(tls / "privkey.pem")
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(tls / "fullchain.pem", append=True)
        backup = ec.generate_private_key(ec.SECP256R1()).public_key()
        (tls / "backup.pub").write_bytes(
            backup.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    def header(self) -> PublicKeyPins:
        pins = [Pin.from_file(self.folder / "tls" / name) for name in ("fullchain.pem", "backup.pub")]
        return PublicKeyPins(tuple(pins), max_age=30 * 86_400)

    def home(self) -> None:
        """Have the network lead to the site."""
        self._lead_to(self.site)

    def hotspot(self) -> None:
        """Have the network lead to the attacker."""
        self._lead_to(self.attacker)

    def _lead_to(self, server: TLSServer) -> None:
        self.routes[HOST] = server.port
        (self.base / "routes.json").write_text(json.dumps(self.routes))

    def _environment_that_is_set_up(self) -> Path:
        """This environment as make sees it. It is set up already, since these tests run in it."""
        folder = self.base / "venv"
        (folder / "stamps").mkdir(parents=True)
        for part in ("bin", "include", "lib", "pyvenv.cfg"):
            if (Path(sys.prefix) / part).exists():
                (folder / part).symlink_to(Path(sys.prefix) / part)
        for name in ("venv", "lab", "test", "dev"):
            (folder / "stamps" / name).touch()
        return folder

    def environment(self) -> dict[str, str]:
        python = self.base / "python"
        python.mkdir()
        (python / "sitecustomize.py").write_text(_SITE_CUSTOMIZE.format(routes=str(self.base / "routes.json")))
        roots = str(self.folder / "tls" / "roots.pem")
        return {
            "COLUMNS": "80",
            "HOME": str(self.base),
            "NO_COLOR": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            # Of several checkouts that share an environment, the one that is tested.
            "PYTHONPATH": f"{python}:{ROOT}",
            "REQUESTS_CA_BUNDLE": roots,
            "SSL_CERT_FILE": roots,
            "TERM": "dumb",
            "VENV": str(self._environment_that_is_set_up()),
            "WORKERS": "0",
            "XDG_DATA_HOME": str(self.base / "data"),
        }


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Ground]:
    made = Ground(tmp_path)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    # A make that runs this suite must not lead the make of a document.
    for name in ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(made.folder)
    # What a document sets in the environment ends with it.
    with patch.dict(os.environ), made.site, made.attacker, loopback_names(made.routes):
        yield made


def run(document: Path, blocks: Blocks, namespace: dict[str, object]) -> list[Example]:
    examples = examples_of(document, blocks, namespace)
    for example in examples:
        example.evaluate()
    for value in examples[0].namespace.values() if examples else ():
        if isinstance(value, PinStore):
            value.close()
    return examples


@pytest.fixture
def ports() -> Generator[ExitStack]:
    """Holds the ports that a document is given for the ones which a reader sees in it."""
    with ExitStack() as stack:
        yield stack


def with_free_ports(document: Path, folder: Path, ports: ExitStack) -> Path:
    """The document, or a copy that listens on no port which somebody else on this machine may have."""
    text = document.read_text()
    fixed = set(LISTENS.findall(text))
    if not fixed:
        return document
    chosen = {number: str(ports.enter_context(reserved_port())) for number in fixed}
    copy = folder / document.name
    copy.write_text(re.sub(rf"\b(?:{'|'.join(fixed)})\b", lambda found: chosen[found[0]], text))
    return copy


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_does_what_the_document_says(document: Path, ground: Ground, ports: ExitStack) -> None:
    missing = lacking(*NEEDS.get(document.name, ()))
    if missing is not None:
        pytest.skip(missing)
    blocks = Blocks(ground.folder, ROOT, dict(os.environ))
    try:
        run(
            with_free_ports(document, ground.base, ports),
            blocks,
            {
                "__name__": "__main__",
                "ground": ground,
                "environment": blocks.environment,
                "servers": DatabaseMachines(ports),
            },
        )
    finally:
        blocks.close()


# What the runner must not let pass: each with what it says about it.
BROKEN = {
    "output of a command": ("```console\n$ echo one\ntwo\n```\n", "echo one prints"),
    "output left out": ("```console\n$ echo one\n```\n", "echo one prints"),
    "failing command": ("```console\n$ false\n```\n", "exits with 1"),
    "output without command": ("```console\none\n```\n", "begins with a command"),
    "server that ends": ("```console\n$ echo one &\ntwo\n```\n", "ended"),
    "python that fails": ("```python\nassert 1 == 2, 'unequal'\n```\n", "unequal"),
    "python in a comment": ("<!--- invisible-code-block: python\nassert 1 == 2, 'unequal'\n--->\n", "unequal"),
    "printed text": ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "the python block before prints"),
    "text of nothing": ("```text\n2\n```\n", "has printed"),
    "json": ("```json\n{,}\n```\n", "property name"),
    "toml": ("```toml\n= 1\n```\n", "Invalid"),
    "variable with a slip": ("```ini\n# /a/b.env\nPASSWORD = a\n```\n", "PASSWORD = a"),
    "file of nowhere": ("```haproxy\nglobal\n```\n", "where the file belongs"),
    "command cut off": ("```sh\nif true\n```\n", "bash"),
    "unknown language": ("```ruby\nputs 1\n```\n", "nothing runs a 'ruby' block"),
    "no language": ("```\nputs 1\n```\n", "nothing runs a '' block"),
    "directive with code": ("```{code-block} python\n1/0\n```\n", "nothing runs"),
    "indented block": ("Text.\n\n    $ echo one\n", "only fenced ones are run"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_block_that_does_not_hold_fails(broken: str, tmp_path: Path) -> None:
    text, message = BROKEN[broken]
    document = tmp_path / "page.md"
    document.write_text(text)
    blocks = Blocks(tmp_path, tmp_path, dict(os.environ))
    with pytest.raises((AssertionError, ValueError), match=re.escape(message)):
        run(document, blocks, {})
    blocks.close()


SLIPS = {
    "systemd-analyze": ("ini", "# /a/b.service\n[Service]\nExecStart=/a\nRestrat=always\n", "Restrat"),
    "logrotate": ("logrotate", "# /a/b\n/var/log/a {\n    weeekly\n}\n", "weeekly"),
    "haproxy": ("haproxy", "# /a/b\nfrontend a\n    bnid :443\n", "bnid"),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_in_a_file_for_another_machine_is_found(name: str) -> None:
    if program(name) is None:
        pytest.skip(f"{name} is not installed")
    language, text, slip = SLIPS[name]
    with pytest.raises(AssertionError, match=slip):
        check(language, text)


def test_blocks_that_hold_pass(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(
        "```{note}\nText.\n```\n\n1. In a list\n\n   ```python\n   x = 1\n   print(x)\n   ```\n\n```text\n1\n```\n\n"
        "```console\n$ cat &\n$ echo a \\\n  b\na b\n$ (exit 3)\n$ echo $?\n3\n$ seq 9\n1\n...\n9\n```\n"
    )
    blocks = Blocks(tmp_path, tmp_path, dict(os.environ))
    examples = run(document, blocks, {})
    blocks.close()
    assert len(examples) == 3
    assert examples[0].namespace["x"] == 1
