"""Lists of ssl-pinning for the tests of their followers, signed over bytes that are made here."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dynpin import Pin
from dynpin.clientstore import PinStore
from tests.recovery.conftest import HOST, Bank

KEY, OTHER = (rsa.generate_private_key(65537, 2048) for _ in range(2))
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
FIRST, SECOND = Pin(b"\x01" * 32), Pin(b"\x02" * 32)
DAY = 86_400


def date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def item(domain: str, pin: Pin | str, at: float, expire: object = 30 * DAY, **more: object) -> dict[str, object]:
    return {"domainName": domain, "key": str(pin), "fqdn": domain, "expire": expire, "date": date(at), **more}


def signed(keys: object, key: rsa.RSAPrivateKey = KEY) -> bytes:
    """A list in its server's form. The signed bytes are made here: RFC 8785 for ASCII and whole numbers."""
    payload = {"keys": keys}
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode("ascii")
    signature = base64.b64encode(key.sign(canonical, padding.PKCS1v15(), SHA512())).decode()
    return json.dumps({"payload": payload, "signature": signature}, indent=2).encode()


class List:
    """A list of the bank's, at a URI."""

    def __init__(self, bank: Bank) -> None:
        self.bank, self.store = bank, bank.store
        self.file = bank.operator.www / "pins.json"
        self.uri = f"{bank.publisher.uri}/pins.json"

    def publish(self, *keys: dict[str, object], data: bytes | None = None) -> None:
        self.file.write_bytes(signed(list(keys)) if data is None else data)

    def follow(self) -> str:
        self.bank.later(2 * DAY)
        outcome = self.store.follow(self.uri, PUBLIC).outcome
        assert outcome is not None
        return outcome


def pinned(store: PinStore, host: str = HOST) -> set[Pin]:
    known = store.known_host(host)
    return set() if known is None else set(known.pins)
