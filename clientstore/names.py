"""The names in one request: that of the URL, those that options replace it with, and the one that TLS verifies."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from dynpin.errors import InvalidHost, StoreError, UnenforceableContext
from dynpin.hosts import canonical_host, is_ip_literal

from .enforcement import Enforcement, Handshake
from .options import PinOptions
from .store import PinStore

__all__ = ["Names", "host_of_field", "host_of_url", "is_for", "refuse_assert_hostname"]


def host_of_url(url: str) -> str:
    """The host in the text of a URL, before a library writes it in its own way; empty if there is none."""
    try:
        # UTS 46 makes σ of each Σ. Python's lower(), in urlsplit and in urllib3, makes ς of the last one in a word.
        return urlsplit(url.replace("Σ", "σ")).hostname or ""  # noqa: RUF001
    except ValueError:
        return ""


@lru_cache(maxsize=256)
def host_of_field(value: str) -> str:
    """The host that a Host field names, without its port (RFC 9110 §7.2); empty if it names none."""
    return host_of_url(f"//{value.strip()}")


def is_for(host: str, field: str | None) -> bool:
    """Whether a request with this Host field is for `host`. Without the field it is."""
    return field is None or _canonical(host_of_field(field)) == _canonical(host)


def refuse_assert_hostname(name: object, verified: str | None = None) -> None:
    """Refuse ``assert_hostname``: with it urllib3 compares the name itself, and switches off TLS's own check.

    Args:
        name: urllib3's ``assert_hostname``.
        verified: the name that TLS would verify, which is allowed; None if it is not known yet.

    Raises:
        UnenforceableContext: for False and for another name.
    """
    if name is False:
        raise UnenforceableContext(
            "assert_hostname=False leaves the name unverified, and pins belong to a name; give server_hostname= with "
            "the name in the certificate"
        )
    if isinstance(name, str) and name and verified is not None and not is_for(verified, name):
        raise UnenforceableContext(
            f"assert_hostname={name!r} makes urllib3 compare the name itself, and TLS verifies none; "
            f"give server_hostname={name!r} instead"
        )


class Names:
    """Compares the names that a request is meant for with the one that TLS verifies, for one client.

    The guard on the connection knows only TLS's name. A library may still send a pinned host's request over the
    connection: because of ``server_hostname``, because of a Host field that the user set, or because it writes the name
    in another way.

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
        """Refuse the request if one of its names is pinned and is not the one that TLS verifies.

        Args:
            asked: all names that the request is meant for.
            verified: the name that TLS verifies; None if it verifies none.

        Raises:
            PinValidationError: nothing may be sent. Not raised with ``on_mismatch="report"``.
        """
        others = {_canonical(name) for name in asked if name and name != verified}  # usually empty
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
            return True  # the check says why the pins cannot be read


def _canonical(name: str) -> str:
    # Only host names can be pinned, and no server treats another text as a host name.
    try:
        return canonical_host(name)
    except InvalidHost:
        return ""
