"""Contexts that the caller made: copies with the same roots, and the options that must not change them.

Also the public roots for ``private_roots="bypass"``.
"""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from typing import NoReturn

from dynpin.errors import UnenforceableContext

__all__ = ["public_roots_of_certifi", "refuse_bundle", "refuse_certificate", "refuse_setting", "same_roots"]


def refuse_certificate() -> NoReturn:
    """Refuse a client certificate for one request if the context is the caller's: the library would load it there.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        "cert= together with PinnedAdapter(context=...) would load the client certificate into the context, which then "
        "shows it to every host; load it into the context yourself with load_cert_chain, or leave out context= and "
        "name the roots with verify="
    )


def refuse_bundle(verify: object) -> None:
    """Refuse a bundle of roots for one request if the context is the caller's.

    A bundle from the environment is ignored, as are the library's default roots.

    Raises:
        TypeError: for a path, certificates or their digest.
    """
    of_environment = [os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")]
    if not isinstance(verify, bool | None) and verify not in of_environment:
        raise TypeError(
            "verify= with a bundle has no effect together with PinnedAdapter(context=...): load the bundle into "
            "the context yourself with load_verify_locations, or leave out context="
        )


def refuse_setting(name: str) -> NoReturn:
    """Refuse an option that a library applies to its own contexts only, and ignores for the caller's.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        f"{name}= has no effect on a context of your own: set it there, with context.minimum_version, "
        "context.maximum_version or context.set_ciphers()"
    )


def same_roots(context: ssl.SSLContext | None) -> ssl.SSLContext:
    """A context with the roots that `context` has loaded, or the system's, and without a client certificate.

    It does not take over roots that a context looks up in a folder, or lists of revoked certificates.
    """
    try:
        roots = [] if context is None else context.get_ca_certs(binary_form=True)
    except NotImplementedError:
        roots = []  # truststore's context, which trusts the system's roots
    if context is None or not roots:
        # A context that looks up its roots in a folder, as the system's often does, lists none of them.
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
    # Not with a context: truststore's lists no roots.
    _, *roots = certifi.contents().split(ssl.PEM_HEADER)
    return frozenset(
        ssl.PEM_cert_to_DER_cert(f"{ssl.PEM_HEADER}{root.partition(ssl.PEM_FOOTER)[0]}{ssl.PEM_FOOTER}")
        for root in roots
    )
