"""Contexts of the caller's own: one that trusts the same and shows nothing else, and what must not touch them.

And the public roots of ``private_roots="bypass"``.
"""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from typing import NoReturn

from dynpin.errors import UnenforceableContext

__all__ = ["public_roots_of_certifi", "refuse_bundle", "refuse_certificate", "refuse_setting", "same_roots"]


def refuse_certificate() -> NoReturn:
    """Refuse a request's client certificate where the context is the caller's: the library would load it into that one.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        "cert= together with PinnedAdapter(context=...) would have the context, which serves every host, show the "
        "client certificate from then on; load it into the context yourself, by load_cert_chain, or leave context= out "
        "and name the roots by verify="
    )


def refuse_bundle(verify: object) -> None:
    """Refuse a request's own bundle of roots where the context is the caller's.

    A bundle that the environment names is passed over, as the roots are that a library has by default.

    Raises:
        TypeError: for a path, the certificates themselves or their digest.
    """
    of_environment = [os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")]
    if not isinstance(verify, bool | None) and verify not in of_environment:
        raise TypeError(
            "verify= of a bundle together with PinnedAdapter(context=...) would have no effect: load the bundle into "
            "the context yourself, by load_verify_locations, or leave context= out"
        )


def refuse_setting(name: str) -> NoReturn:
    """Refuse an option that a library minds for contexts that it makes, and passes over for the caller's.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        f"{name}= has no effect on a context of your own: set it there, by context.minimum_version, "
        "context.maximum_version or context.set_ciphers()"
    )


def same_roots(context: ssl.SSLContext | None) -> ssl.SSLContext:
    """A context with the roots that `context` has loaded, or the system's, and with no client certificate.

    Roots that a context looks up in a folder are not among them, and neither are lists of revoked certificates.
    """
    try:
        roots = [] if context is None else context.get_ca_certs(binary_form=True)
    except NotImplementedError:
        roots = []  # truststore's, which trusts the system's
    if context is None or not roots:
        # A context that looks its roots up in a folder, as the system's often does, names none of them.
        return ssl.create_default_context()
    fresh = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    fresh.load_verify_locations(cadata=b"".join(roots))
    fresh.verify_flags = context.verify_flags & ~(ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_CRL_CHECK_CHAIN)
    fresh.minimum_version = context.minimum_version
    return fresh


@lru_cache(maxsize=1)
def public_roots_of_certifi() -> frozenset[bytes]:
    """The public roots of certifi, DER.

    Raises:
        UnenforceableContext: if certifi is not installed.
    """
    try:
        import certifi  # noqa: PLC0415 - needed for this one option
    except ImportError:
        raise UnenforceableContext(
            'private_roots="bypass" needs the list of public roots: pip install certifi'
        ) from None
    # Not by a context, which truststore's would not tell.
    _, *roots = certifi.contents().split(ssl.PEM_HEADER)
    return frozenset(
        ssl.PEM_cert_to_DER_cert(f"{ssl.PEM_HEADER}{root.partition(ssl.PEM_FOOTER)[0]}{ssl.PEM_FOOTER}")
        for root in roots
    )
