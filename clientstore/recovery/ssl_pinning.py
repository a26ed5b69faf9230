"""The signed list of ssl-pinning (https://github.com/ssl-pinning). Its mobile SDKs read the same file.

.. code-block:: json

    {"payload": {"keys": [{"domainName": "www.example.com", "key": "d6qz…=", "fqdn": "www.example.com",
                           "expire": 2592000, "date": "2026-11-29T12:00:00Z"}]},
     "signature": "…"}

One RSA key signs the list: PKCS #1 v1.5 with SHA-512 over ``payload`` in the canonical form of RFC 8785 (``pkg/signer``
of the server, ``crypto/SignatureVerifier`` of both SDKs). Unlike TUF it has no version and no change of keys. The
newest ``date`` serves as the version. Each key ends at ``date`` plus ``expire`` seconds.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from tuf.api.exceptions import DownloadError
from tuf.ngclient import FetcherInterface  # pyright: ignore[reportPrivateImportUsage]

from dynpin.errors import InvalidHost, RecoveryError
from dynpin.header import MAX_PINS
from dynpin.hosts import canonical_host, is_ip_literal
from dynpin.noting import DEFAULT_MAX_MAX_AGE
from dynpin.pin_list import LONGEST_LIST, ListedHost, PinList
from dynpin.pins import Pin
from dynpin.recovery import SIGNING_KEY, Recovery
from dynpin.report import read_time, rfc3339

from .verifying import Verified

__all__ = ["read_signing_key", "verify_ssl_pinning"]

# The name under which the date of the last accepted list is stored, in seconds since the epoch, UTC.
_TAKEN = "ssl-pinning-date"
_LEAST_BITS = 2048
# How far ahead a list may be dated, in seconds: once it is accepted, no older list counts.
_AHEAD = 86_400.0


class _Key(NamedTuple):
    pattern: str
    pin: Pin
    date: float
    ends_at: float


def read_signing_key(data: bytes) -> bytes:
    """The RSA public key in a file, as the DER of its SubjectPublicKeyInfo.

    Args:
        data: PEM or DER; or either in base64, as the SDKs are configured.

    Raises:
        RecoveryError: if it is not such a key, or has fewer than 2048 bits.
    """
    with contextlib.suppress(ValueError):  # then it is plain PEM or DER
        data = base64.b64decode(b"".join(data.split()), validate=True)
    try:
        key = load_pem_public_key(data) if b"-----BEGIN " in data else load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _LEAST_BITS:
        raise RecoveryError(f"it is not an RSA public key of {_LEAST_BITS} bits or more in PEM, DER or base64 of these")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def verify_ssl_pinning(
    recovery: Recovery, files: Mapping[str, bytes], fetcher: FetcherInterface, now: float
) -> Verified:
    """Fetch and verify a list of ssl-pinning.

    Args:
        recovery: the SHA-256 of its key, and its URI.
        files: what is trusted so far: its key, and the date of the last accepted list.
        fetcher: reads the list.
        now: seconds since the epoch, UTC.

    Raises:
        ModuleNotFoundError: without rfc8785.
    """
    try:
        data = fetcher.download_bytes(recovery.uri, LONGEST_LIST)
        keys = _keys(data, files[SIGNING_KEY])
        dated = max(key.date for key in keys)
        _check_date(dated, float(files[_TAKEN]) if _TAKEN in files else dated, now)
        pins = _pin_list(keys, now)
    except (DownloadError, RecoveryError) as error:
        return Verified(files, problem=str(error))
    return Verified({**files, _TAKEN: repr(dated).encode("ascii")}, int(dated), pins, dated=rfc3339(dated))


def _check_date(dated: float, taken: float, now: float) -> None:
    if dated > now + _AHEAD:
        raise RecoveryError(f"its date, {rfc3339(dated)}, is in the future: its owner's clock or yours is wrong")
    if dated < taken:
        raise RecoveryError(f"its date, {rfc3339(dated)}, is before that of the last accepted list, {rfc3339(taken)}")


def _payload(data: bytes, key: bytes) -> dict[str, object]:
    """The payload of a list, after its signature was verified."""
    import rfc8785  # noqa: PLC0415 - TUF's lists do without it

    public = load_der_public_key(key)
    assert isinstance(public, rsa.RSAPublicKey)  # noqa: S101 - read_signing_key gave it
    try:
        members = _object(json.loads(data.decode("utf-8")), "the list")
        payload = _object(members.get("payload"), "its payload")
        # The signature covers the values that were read, so the formatting of the file does not matter.
        signed = rfc8785.dumps(cast("dict[str, None]", payload))
        signature = base64.b64decode(_text(members, "signature"), validate=True)
        public.verify(signature, signed, padding.PKCS1v15(), SHA512())
    except (ValueError, RecursionError) as error:
        raise RecoveryError(f"it is not a signed list of ssl-pinning: {error}") from None
    except InvalidSignature:
        raise RecoveryError("its signature is not from the key that you trust") from None
    return payload


def _keys(data: bytes, key: bytes) -> list[_Key]:
    """The keys of a list, at least one, after its signature was verified."""
    items = _payload(data, key).get("keys")
    if not isinstance(items, list) or not items:
        raise RecoveryError("its payload has no keys")
    return [_key(item, f"keys[{number}]") for number, item in enumerate(cast("list[object]", items))]


def _key(item: object, what: str) -> _Key:
    members = _object(item, what)
    try:
        pin = Pin.from_base64(_text(members, "key").strip().removeprefix("sha256/"))
    except ValueError as error:
        raise RecoveryError(f"{what}: {error}") from None
    date, flaw = read_time(members.get("date"), "date")
    if date is None or flaw:
        raise RecoveryError(f"{what} has no RFC 3339 date")
    expire = members.get("expire", 0)  # the server omits a zero
    if not isinstance(expire, int) or isinstance(expire, bool):
        raise RecoveryError(f"{what}: expire is not a whole number of seconds")
    return _Key(_text(members, "domainName").strip(), pin, date, date + expire)


def _pin_list(keys: Iterable[_Key], now: float) -> PinList:
    hosts: dict[str, ListedHost] = {}
    for pattern, pin, _, ends_at in keys:
        # OkHttp's patterns. In them `*.` stands for exactly one label, and not for the host itself. Pins cannot express
        # that (RFC 7469 §2.3.3). The server writes `*.` for every host without a pattern of its own.
        name = re.sub(r"^\*\*?\.", "", pattern)
        try:
            host = canonical_host(name)
        except InvalidHost as error:
            raise RecoveryError(f"it contains an invalid host: {error}") from None
        if is_ip_literal(host) or "*" in host:
            raise RecoveryError(f"it contains {host}, which is not a host name, and cannot be pinned")
        if ends_at <= now:
            continue
        known = hosts.get(host, ListedHost(()))
        pins = tuple(dict.fromkeys((*known.pins, pin)))
        if len(pins) > MAX_PINS:
            raise RecoveryError(f"{host} has more than {MAX_PINS} pins")
        covers = known.include_subdomains or name != pattern
        hosts[host] = ListedHost(pins, covers, max(known.ends_at or ends_at, ends_at))
    if not hosts:
        raise RecoveryError("every key in it has expired: its owner must sign it again, or your clock is wrong")
    return PinList(hosts, DEFAULT_MAX_MAX_AGE)


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise RecoveryError(f"{what} is not a JSON object")
    return cast("dict[str, object]", value)


def _text(members: Mapping[str, object], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise RecoveryError(f"{name} is missing or is not text")
    return value
