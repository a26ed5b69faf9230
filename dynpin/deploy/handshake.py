"""Whether a TLS client accepts a certificate chain: OpenSSL decides, in a handshake in memory."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Refusal", "refusal"]

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME: dates are checked elsewhere, for any moment.
_NO_CHECK_TIME = 0x200000
# A handshake takes at most six turns. After more, nobody would ever have anything to say.
_TURNS = 8


class Refusal(NamedTuple):
    """Why a client refuses a chain, in OpenSSL's words, and whether its certificates are the reason.

    If they are not, it is the kind of their key. Other settings of client and server may permit that.
    """

    reason: str
    of_certificates: bool


def refusal(chain: Path, key: Path, host: str, anchors: Sequence[bytes], *, strict: bool = False) -> Refusal | None:
    """Why a client with Python's defaults refuses a server with this chain; None if it accepts it at some date.

    Args:
        chain: the chain, PEM, leaf first.
        key: its private key, PEM, unencrypted.
        host: the name that the client asks for.
        anchors: what the client trusts, DER: roots or other certificates.
        strict: whether the defaults are those of Python 3.13 and later (VERIFY_X509_STRICT: RFC 5280, by the letter).

    Raises:
        OSError: if a file cannot be read, or OpenSSL cannot use it.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key, password=b"")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=b"".join(anchors))
    client.verify_flags |= ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    if strict:
        client.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    waiting = {0, 1}
    try:
        for turn in range(_TURNS):
            with contextlib.suppress(ssl.SSLWantReadError):
                ends[turn % 2].do_handshake()
                waiting.discard(turn % 2)
    except ssl.SSLCertVerificationError as error:
        return Refusal(error.verify_message.removesuffix("."), of_certificates=True)
    except ssl.SSLError as error:
        return Refusal((error.reason or "no reason").replace("_", " ").lower(), of_certificates=False)
    return Refusal("the handshake does not end", of_certificates=False) if waiting else None
