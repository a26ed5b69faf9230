"""A context that trusts what another one trusts, for connections on which nothing else of that one may be seen."""

from __future__ import annotations

import ssl

__all__ = ["same_roots"]


def same_roots(context: ssl.SSLContext | None) -> ssl.SSLContext:
    """A context that trusts what `context` trusts, or the system's roots, and shows no client certificate."""
    roots = () if context is None else context.get_ca_certs(binary_form=True)
    if context is None or not roots:
        # A context that looks its roots up in a folder, as the system's often does, names none of them.
        return ssl.create_default_context()
    fresh = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    fresh.load_verify_locations(cadata=b"".join(roots))
    fresh.verify_flags = context.verify_flags
    fresh.minimum_version = context.minimum_version
    return fresh
