"""What the tests of reports share."""

from __future__ import annotations

import json
import ssl
from functools import cache
from pathlib import Path

from dynpin import Pin

ONE, TWO = (Pin(bytes([number]) * 32) for number in (1, 2))


@cache
def chain() -> tuple[bytes, bytes]:
    """Two DER certificates."""
    keys: dict[str, list[dict[str, str]]] = json.loads((Path(__file__).parent / "vectors/spki.json").read_text())
    leaf, issuer = (ssl.PEM_cert_to_DER_cert(keys["keys"][number]["certificate"]) for number in (2, 0))
    return leaf, issuer


def body(**members: object) -> str:
    """A report without fault, but for the members that are given; None leaves one out."""
    report: dict[str, object] = {
        "date-time": "2014-04-06T13:00:50Z",
        "hostname": "www.bank.test",
        "port": 443,
        "effective-expiration-date": "2014-05-01T12:40:50Z",
        "include-subdomains": False,
        "noted-hostname": "bank.test",
        "served-certificate-chain": [ssl.DER_cert_to_PEM_cert(der) for der in chain()[:1]],
        "validated-certificate-chain": [ssl.DER_cert_to_PEM_cert(der) for der in chain()],
        "known-pins": [f'pin-sha256="{ONE}"', f'pin-sha256="{TWO}"'],
    }
    report |= {name.replace("_", "-"): value for name, value in members.items()}
    return json.dumps({name: value for name, value in report.items() if value is not None})
