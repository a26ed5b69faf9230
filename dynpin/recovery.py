"""Recovery: whose signed list may change the pins of a host, and when a client takes a header's word for it.

Two extension directives (RFC 7469 §2.1 rule 5: other clients ignore them) name a root of The Update Framework, by the
SHA-256 of version 1 of its ``root.json``, and where its files are. A thief of the web server can send any header, so a
header is believed less in this than in its pins:

- While a root lives no header changes it, drops it or shortens its life; a later version that the former one has signed
  does.
- A host that is known without a root takes one only after every visit of seven days has named the same.
- ``max-age=0`` and a short max-age take the pins away. The root, and that the host was known, stay until the pins would
  have expired; else they would be the way around both.
- The place of the files is part of it: a header that names another one is believed after seven days as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from dynpin.errors import InvalidHeader
from dynpin.pins import Pin
from dynpin.uris import is_http_uri

__all__ = ["ADOPTION", "FIRST_ROOT", "SIGNING_KEY", "NotedRecovery", "Recovery", "adopt"]

# How long a known host must name the same root before it is believed, in seconds.
ADOPTION = 7 * 86_400.0
# What a client trusts to begin with, by the name under which it keeps that: version 1 of TUF's root; or the one public
# key, DER, of a list of ssl-pinning. The SHA-256 of either is the `root` below.
FIRST_ROOT, SIGNING_KEY = "root_history/1.root.json", "signing-key.der"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What the directives ``recovery-root`` and ``recovery-uri`` name.

    Attributes:
        root: the SHA-256 of version 1 of the ``root.json``, 32 bytes.
        uri: the folder of the files: http or https, without query, fragment or user.

    Raises:
        InvalidHeader: if it could not stand in a header; the codes are ``recovery-root-invalid`` and
            ``recovery-uri-invalid``.
    """

    root: bytes
    uri: str

    def __post_init__(self) -> None:
        if len(self.root) != 32:
            raise InvalidHeader("recovery-root-invalid", f"a recovery-root has 32 bytes, not {len(self.root)}")
        if not is_http_uri(self.uri) or urlsplit(self.uri).username is not None or set(self.uri) & {"?", "#"}:
            raise InvalidHeader(
                "recovery-uri-invalid",
                f"{self.uri[:120]!r} is not an absolute http or https URI without user, query and fragment",
            )

    def __repr__(self) -> str:
        return f"Recovery.of_texts({self.root_text!r}, {self.uri!r})"

    @classmethod
    def of_texts(cls, root: str, uri: str) -> Recovery:
        """From the texts of the two directives.

        Raises:
            InvalidHeader: if one of them is malformed.
        """
        try:
            digest = Pin.from_base64(root).digest
        except ValueError as error:
            raise InvalidHeader("recovery-root-invalid", f"recovery-root: {error}") from None
        return cls(digest, uri)

    @property
    def root_text(self) -> str:
        """The root as it stands in a header."""
        return str(Pin(self.root))


@dataclass(frozen=True, slots=True)
class NotedRecovery:
    """What a client knows of the recovery of a host. Times are seconds since the epoch, UTC.

    Attributes:
        standing: the root that holds, or None.
        until: when that root is forgotten, or without one that the host was known; None for as long as the pins.
        list_version: the version of the last signed list that was applied to the host; 0 where none was. A list of
            ssl-pinning has its date in seconds since the epoch in place of one.
        offered: what the last headers have named instead, which is not believed yet, or None.
        offered_at: when it was first seen.
    """

    standing: Recovery | None = None
    until: float | None = None
    list_version: int = 0
    offered: Recovery | None = None
    offered_at: float | None = None

    def without_offer(self) -> NotedRecovery:
        """The same without what headers have named and is not believed."""
        return replace(self, offered=None, offered_at=None)


def adopt(
    noted: NotedRecovery | None, ends_at: float | None, named: Recovery | None, *, expires_at: float, now: float
) -> NotedRecovery | None:
    """What a client knows after a Valid Pinning Header.

    Args:
        noted: what was known, an empty one for a host that was known without a root; None for a host that was not.
        ends_at: when that is forgotten; None never.
        named: what the header names, or None.
        expires_at: the Effective Expiration Date that the header sets.
        now: seconds since the epoch, UTC.
    """
    if noted is None:
        return None if named is None else NotedRecovery(named)
    if noted.standing is not None and (named is None or named.root != noted.standing.root):
        return replace(noted.without_offer(), until=ends_at)
    # A header can lengthen that life and not shorten it.
    noted = replace(noted, until=ends_at if ends_at is not None and ends_at > expires_at else None)
    if named is None or named == noted.standing:
        noted = noted.without_offer()
    elif noted.offered != named or noted.offered_at is None or noted.offered_at > now:
        noted = replace(noted, offered=named, offered_at=now)
    elif now - noted.offered_at >= ADOPTION:
        noted = replace(noted, standing=named).without_offer()
    return None if noted == NotedRecovery() else noted
