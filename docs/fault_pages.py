"""A page for each fault that the linter knows, from faults.toml and from what the linter says about its example."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from dynpin import Pin
from dynpin.deploy.lint import SEVERITIES, Circumstances, Fault, Finding, catalogue, lint
from dynpin.deploy.lint.known import EMPTY, NEWLINE

__all__ = ["example_circumstances", "example_value", "fault_page", "index_page", "write_pages"]

_SEVERITY = {
    "info": "worth knowing",
    "warning": "noted by clients, and weak or harmful later",
    "error": "clients ignore the policy",
    "critical": "users are or will be locked out, or it is an attack",
}
_LINK = "https://www.rfc-editor.org/rfc/rfc7469#section-"


def fault_page(fault: Fault) -> str:
    """The page of one fault, in Markdown: what it is, an example, what clients do, what to do instead."""
    value = example_value(fault)
    found = _own_finding(fault, value)
    context = _example_context(fault)
    about = {name: member for name, member in context.items() if name in fault.context}
    text = value or ""
    shown = text if len(text) <= 1000 else f"{text[:200]}… ({len(text)} characters)"
    lines = [
        f"# {fault.name}",
        "",
        f"**{fault.severity}**: {_SEVERITY[fault.severity]}. "
        f"Category: {fault.category}. Reason: [RFC 7469 §{fault.section}]({_LINK}{fault.section}).",
        "",
        found.message,
        "",
        "## An example",
        "",
        "```text",
        # One line for each directive, so that a reader sees all of it.
        "(no pinning header)" if value is None else f"{fault.field}: {shown}".replace("; ", ";\n  "),
        "```",
        "",
    ]
    if about:
        lines += ["in these circumstances:", "", "```json", json.dumps(about, indent=2), "```", ""]
    if found.span is not None and found.span != (0, len(text)) and len(text) <= 1000:
        lines += ["The part that is meant:", "", "```text", text[found.span[0] : found.span[1]], "```", ""]
    lines += ["## What clients do", "", found.effect, "", "## What to do", "", found.fix, ""]
    return "\n".join(lines)


def index_page() -> str:
    """The page that lists every fault by severity, worst first."""
    lines = ["# Faults", "", "What `dynpin lint` and `dynpin check` know, by severity.", ""]
    for severity in reversed(SEVERITIES):
        lines += [f"## {severity}", "", f"Severity {severity}: {_SEVERITY[severity]}.", ""]
        lines += [
            f"- [{fault.name}]({fault.name}.md): {fault.effect}"
            for fault in catalogue().values()
            if fault.severity == severity
        ]
        lines.append("")
    names = "\n".join(catalogue())
    return "\n".join(lines) + f"\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"


def write_pages(folder: Path) -> list[Path]:
    """Write ``index.md`` and a page for each fault into `folder`; files that are up to date are not changed."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"index": index_page(), **{name: fault_page(fault) for name, fault in catalogue().items()}}
    written: list[Path] = []
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def _own_finding(fault: Fault, value: str | None) -> Finding:
    found = lint(value, name=fault.field, circumstances=example_circumstances(fault))
    return next(each for each in found if each.fault == fault.name)


# -- the examples in faults.toml, filled in for an imaginary deployment whose keys never change ------------------------

_RFC = ("d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=", "E9CZ9INDbd+2eRQozYqqbQ2yXLVKB9+xcprMF+44U1g=")


def example_value(fault: Fault) -> str | None:
    """The header value with the fault; None if the fault is a missing header."""
    return None if fault.example is None else _filled(fault.example)


def _example_context(fault: Fault) -> dict[str, object]:
    """The circumstances in which the example is a fault, as JSON."""
    sound: dict[str, object] = {
        "scheme": "https",
        "chain_valid": True,
        "host": "www.example.com",
        "chain_pins": ["{key}", "{ca}"],
    }
    return cast("dict[str, object]", _deep({**sound, **fault.context}))


def example_circumstances(fault: Fault) -> Circumstances:
    """The circumstances in which the example is a fault."""
    return Circumstances.from_dict(_example_context(fault))


def _deep(value: object) -> object:
    match value:
        case str():
            return _filled(value) or None
        case list():
            return [_deep(item) for item in cast("list[object]", value)]
        case Mapping():
            return {key: _deep(item) for key, item in cast("Mapping[str, object]", value).items()}
        case _:
            return value


def _filled(text: str) -> str:
    for name, value in _values().items():
        text = text.replace("{" + name + "}", value)
    return text


def _pin(name: str) -> Pin:
    return Pin(hashlib.sha256(f"dynpin example: {name}".encode()).digest())


@cache
def _values() -> Mapping[str, str]:
    certificate = _certificate()
    der = certificate.public_bytes(Encoding.DER)
    pem = certificate.public_bytes(Encoding.PEM).decode()
    key = _pin("key")
    url_safe = Pin(bytes.fromhex("fb" * 4) + key.digest[4:])
    many = "; ".join(f'pin-sha256="{_pin(f"spare {index}")}"' for index in range(8))
    return {
        "pins": f'pin-sha256="{key}"; pin-sha256="{_pin("backup")}"',
        "many": many,
        "long": "x" * 8192,
        "key": str(key),
        "backup": str(_pin("backup")),
        "ca": str(_pin("ca")),
        "other": str(_pin("other")),
        "third": str(_pin("third")),
        "key-hex": key.digest.hex(),
        "key-url": str(url_safe).replace("+", "-").replace("/", "_").rstrip("="),
        "sha1": "2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
        "sha512": "z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
        "rfc": _RFC[0],
        "rfc-backup": _RFC[1],
        "empty": str(EMPTY),
        "newline": str(NEWLINE),
        "zero": str(Pin(bytes(32))),
        "ascii": str(Pin(b"replace this by a real backup..!")),
        "le-x3": "YLh1dUR9y6Kja30RrAn7JKnbQG/uEtLMkBgFF2Fuihg=",
        "le-x4": "sRHdihwgkaib1P1gxX8HFszlD+7/gTfNvuAybgLPNis=",
        "dst-root": "Vjs8r4z+80wjNcr1YKepWQboSIRi63WsWXhIMN+eWys=",
        "isrg-root": "C5+lpZ7tcVwmwQIMcRtPbsQtWLABXhQzejna0wHFr8M=",
        "startcom": "5C8kvU039KouVrl52D0eZSGf4Onjo4Khs8tmyTlV3nU=",
        "certificate": pem,
        "certificate-hash": str(Pin(hashlib.sha256(der).digest())),
        "pem-hash": str(Pin(hashlib.sha256(pem.encode()).digest())),
    }


def _certificate() -> x509.Certificate:
    """A certificate that is always the same: Ed25519 signatures are not random."""
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"dynpin example: certificate").digest())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "www.example.com")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7469)
    builder = builder.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(
        datetime(2027, 1, 1, tzinfo=UTC)
    )
    return builder.sign(key, None)
