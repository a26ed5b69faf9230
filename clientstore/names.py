"""The names of one request: that of the URL, those that options put in its place, and the one that TLS verifies."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from dynpin.errors import InvalidHost, StoreError, UnenforceableContext
from dynpin.hosts import canonical_host, is_ip_literal

from .enforcement import Enforcement, Handshake
from .options import PinOptions
from .store import PinStore

__all__ = ["Names", "host_of_field", "is_for", "refuse_assert_hostname"]


@lru_cache(maxsize=256)
def host_of_field(value: str) -> str:
    """The host that a Host field names, without its port (RFC 9110 §7.2); empty if it names none."""
    try:
        return urlsplit(f"//{value.strip()}").hostname or ""
    except ValueError:
        return ""


def is_for(host: str, field: str | None) -> bool:
    """Whether a request with this Host field is one for `host`, as it is without a field."""
    return field is None or _canonical(host_of_field(field)) == _canonical(host)


def refuse_assert_hostname(name: object, verified: str | None = None) -> None:
    """Refuse that urllib3 compares the name by itself, for which it switches off that TLS does.

    Args:
        name: urllib3's ``assert_hostname``.
        verified: the name that TLS would verify, which may be asserted besides; None if that is not known yet.

    Raises:
        UnenforceableContext: for False and for another name.
    """
    if name is False:
        raise UnenforceableContext(
            "assert_hostname=False leaves the name unverified, and pins hold for a name; give server_hostname=, the "
            "name that the certificate is for"
        )
    if isinstance(name, str) and name and verified is not None and not is_for(verified, name):
        raise UnenforceableContext(
            f"assert_hostname={name!r} has urllib3 look at the certificate by itself, when TLS has verified nothing; "
            f"give server_hostname={name!r} instead"
        )


class Names:
    """Holds the names that a request is meant for against the one that TLS verifies, for one client.

    The guard on the connection knows TLS's name alone. A library may send the request of a pinned host over it all the
    same: by ``server_hostname``, by a Host field of the user's own, or because it writes the name in another way.

    Args:
        store: the Known Pinned Hosts.
        options: how the client enforces its pins.
    """

    def __init__(self, store: PinStore, options: PinOptions) -> None:
        self._store = store
        self._enforcement = Enforcement(
            store, on_mismatch=options.get("on_mismatch", "refuse"), on_violation=options.get("on_violation")
        )

    def hold(self, asked: Iterable[str], verified: str | None) -> None:
        """Refuse the request where a name that is asked for is pinned and is not the one that TLS verifies.

        Args:
            asked: every name that the request is meant for.
            verified: the name that TLS verifies; None if it verifies none.

        Raises:
            PinValidationError: nothing may be sent; or in the ``on_mismatch="report"`` mode nothing is raised.
        """
        others = {_canonical(name) for name in asked if name and name != verified}  # mostly none
        if not others:
            return
        proved = _canonical(verified or "")
        for name in others - {proved, ""}:
            if self._may_be_pinned(name):
                self._enforcement.check(
                    Handshake(
                        asked=name,
                        name=proved or name,
                        strict=bool(proved),
                        chain=[],
                        resumed=False,
                        earlier=None,
                        served=tuple,
                        may_wait=False,
                    )
                )

    def _may_be_pinned(self, name: str) -> bool:
        try:
            return not is_ip_literal(name) and self._store.look_up(name).known_host is not None
        except StoreError:
            return True  # the check says why nothing can be said


def _canonical(name: str) -> str:
    # What is not a host name cannot be pinned, and no server takes it for a name that is.
    try:
        return canonical_host(name)
    except InvalidHost:
        return ""
