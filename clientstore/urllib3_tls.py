"""urllib3: the TLS options of one connection, which must not change a context that other connections use."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from urllib3.exceptions import SSLError
from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs, resolve_ssl_version

from dynpin.errors import UnenforceableContext

from .enforcement import refuse_setting
from .names import refuse_assert_hostname

if TYPE_CHECKING:
    from urllib3.connection import HTTPSConnection

__all__ = ["ASSERTED", "LOADED", "ConnectionOption", "TLSOptions", "refuse_assertions"]

# The options that urllib3 loads into a connection's context when it connects, even if others use that context.
LOADED = ("ca_certs", "ca_cert_dir", "ca_cert_data", "cert_file", "key_file", "key_password")
# With these urllib3 switches off TLS's own verification.
ASSERTED = ("assert_hostname", "assert_fingerprint")
_VERSIONS = ("ssl_version", "ssl_minimum_version", "ssl_maximum_version")
_OF_A_SITE = ("cert_file", "key_file", "key_password")


class TLSOptions(NamedTuple):
    """The TLS options of a connection, as in urllib3."""

    ssl_context: ssl.SSLContext | None
    cert_reqs: int | str | None
    ca_certs: str | None
    ca_cert_dir: str | None
    ca_cert_data: str | bytes | None
    cert_file: str | None
    key_file: str | None
    key_password: str | None
    ssl_version: int | str | None
    ssl_minimum_version: ssl.TLSVersion | None
    ssl_maximum_version: ssl.TLSVersion | None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TLSOptions:
        """Those among the options of a connection, a pool or a manager."""
        asked = cls(*(options.get(name) for name in cls._fields))
        return asked._replace(ca_certs=_expanded(asked.ca_certs), ca_cert_dir=_expanded(asked.ca_cert_dir))

    def for_a_proxy(self) -> TLSOptions:
        """The options for an https proxy: its context must not show the site's client certificate."""
        return self._replace(ssl_context=None, **dict.fromkeys(_OF_A_SITE))

    def stamps(self) -> tuple[int | None, ...]:
        """The modification times of its files: a renewed file is used from the next connection on, as with urllib3."""
        return tuple(map(_changed_at, (self.ca_certs, self.cert_file, self.key_file)))

    def context(self) -> ssl.SSLContext:
        """The context that urllib3 itself makes for these options."""
        context = create_urllib3_context(
            ssl_version=None if self.ssl_version is None else resolve_ssl_version(self.ssl_version),
            ssl_minimum_version=self.ssl_minimum_version,
            ssl_maximum_version=self.ssl_maximum_version,
            cert_reqs=resolve_cert_reqs(self.cert_reqs),
        )
        if not self.load(context):
            context.load_default_certs()
        return context

    def load(self, context: ssl.SSLContext) -> bool:
        """Load roots and client certificate; return whether the options name any roots."""
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file, self.key_password or _no_password)
        if not (self.ca_certs or self.ca_cert_dir or self.ca_cert_data):
            return False
        try:
            context.load_verify_locations(self.ca_certs, self.ca_cert_dir, self.ca_cert_data)
        except OSError as error:
            raise SSLError(error) from error
        return True

    def refuse_beside_a_context(self) -> None:
        """Refuse options that urllib3 would set permanently in the caller's own context, which serves all pools."""
        context = self.ssl_context
        named = [name for name in LOADED if getattr(self, name)]
        if context is not None and self.cert_reqs is not None:
            named += ["cert_reqs"] if resolve_cert_reqs(self.cert_reqs) != context.verify_mode else []
        for name in _VERSIONS:
            if getattr(self, name) is not None:
                refuse_setting(name)
        if named:
            raise TypeError(
                f"{named[0]}= for one pool would change your own context, which serves every host: set it there "
                "yourself, or make another client for these requests"
            )


class ConnectionOption:
    """An option of a connection, an attribute that can be set at any time: ``set_cert()`` does, for example.

    urllib3 would load it into the context when it connects, or loosen the context, and other connections use the same
    one. So urllib3 finds no value here if there is a context: the pinned connection's own ``connect()`` uses it.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, connection: HTTPSConnection | None, owner: type | None = None) -> object:
        if connection is None:
            return None  # of the class, as urllib3's own
        context = getattr(connection, "ssl_context", None)
        if context is None:
            return vars(connection).get("_pin_options", {}).get(self._name)
        return context.verify_mode if self._name == "cert_reqs" else None

    def __set__(self, connection: HTTPSConnection, value: object) -> None:
        vars(connection).setdefault("_pin_options", {})[self._name] = value


def refuse_assertions(name: object, fingerprint: object, verified: str | None = None) -> None:
    """Refuse the options :data:`ASSERTED`; see :func:`~dynpin.clientstore.names.refuse_assert_hostname`.

    Raises:
        UnenforceableContext: for a value of them that loosens TLS.
    """
    refuse_assert_hostname(name, verified)
    if fingerprint:
        raise UnenforceableContext(
            "assert_fingerprint= makes urllib3 switch off the verification of TLS; pin the certificate itself:  "
            "dynpin hosts pin HOST --certificate FINGERPRINT"
        )


def _no_password() -> NoReturn:
    # urllib3's own message. OpenSSL would ask for the password on the terminal.
    raise SSLError("Client private key is encrypted, password is required")


def _expanded(path: str | None) -> str | None:
    return path and str(Path(path).expanduser())


def _changed_at(path: str | None) -> int | None:
    try:
        return Path(path).stat().st_mtime_ns if path else None
    except OSError:
        return None  # urllib3 reports the error when it loads the file
