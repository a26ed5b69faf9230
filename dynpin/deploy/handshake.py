"""Whether a TLS client accepts a certificate chain: OpenSSL decides, in a handshake in memory."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

__all__ = ["refusal"]

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME: dates are checked elsewhere, for any moment.
_NO_CHECK_TIME = 0x200000
# A handshake takes three turns. With more, nobody would ever have anything to say.
_TURNS = 8


def refusal(chain: Path, key: Path, host: str, anchors: Sequence[bytes]) -> str | None:
    """Why a client with OpenSSL's defaults refuses a server with this chain; None if it accepts it at some date.

    Args:
        chain: the chain, PEM, leaf first.
        key: its private key, PEM, unencrypted.
        host: the name that the client asks for.
        anchors: what the client trusts, DER: roots or other certificates.

    Raises:
        OSError: if a file cannot be read, or OpenSSL cannot use it.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key, password=b"")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=b"".join(anchors))
    client.verify_flags |= ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    try:
        for turn in range(_TURNS):
            try:
                ends[turn % 2].do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError as error:
        return error.verify_message.removesuffix(".")
    except ssl.SSLError as error:
        return (error.reason or "no reason").replace("_", " ").lower()
    return None
