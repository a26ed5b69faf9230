"""Recovery: whose signed list may change the pins of a host, and when a client accepts a root from a header.

Two extension directives (RFC 7469 §2.1 rule 5: other clients ignore them) name a root of The Update Framework (TUF) by
the SHA-256 of version 1 of its ``root.json``, and the address of its files. An attacker on the web server can send any
header, so clients trust a header less in this than in its pins:

- A header cannot change, remove or shorten a root that holds. Only a later version of the root can, signed by the
  earlier one.
- A host that is known without a root gets one only when every visit of seven days has named the same root.
- ``max-age=0`` and a short max-age remove the pins. The root, and the fact that the host was known, stay until the pins
  would have expired. Otherwise an attacker could use them to get around both rules.
- The address of the files is a part of the root: another address is also accepted only after seven days.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from dynpin.errors import InvalidHeader
from dynpin.pins import Pin
from dynpin.uris import is_http_uri

__all__ = ["ADOPTION", "FIRST_ROOT", "SIGNING_KEY", "NotedRecovery", "Recovery", "adopt"]

# How long a known host must name the same root before a client accepts it, in seconds.
ADOPTION = 7 * 86_400.0
# The first thing that a client trusts, and its file name: version 1 of TUF's root; or the public key, DER, of a list of
# ssl-pinning. Its SHA-256 is the `root` below.
FIRST_ROOT, SIGNING_KEY = "root_history/1.root.json", "signing-key.der"


@dataclass(frozen=True, slots=True)
class Recovery:
    """The values of the directives ``recovery-root`` and ``recovery-uri``.

    Attributes:
        root: the SHA-256 of version 1 of the ``root.json``, 32 bytes.
        uri: the folder of the files: http or https, without query, fragment or user.

    Raises:
        InvalidHeader: if a header cannot have these values; the codes are ``recovery-root-invalid`` and
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
        """Make it from the texts of the two directives.

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
        """The root as the text in a header."""
        return str(Pin(self.root))


@dataclass(frozen=True, slots=True)
class NotedRecovery:
    """The recovery data of a host at a client. Times are seconds since the epoch, UTC.

    Attributes:
        standing: the root that holds, or None.
        until: when the root is forgotten, or, without a root, the fact that the host was known; None if with the pins.
        list_version: the version of the last signed list that was applied to the host; 0 if there was none. For a list
            of ssl-pinning, its date in seconds since the epoch.
        offered: another root that the last headers named, and that is not accepted yet; or None.
        offered_at: when it was first seen.
    """

    standing: Recovery | None = None
    until: float | None = None
    list_version: int = 0
    offered: Recovery | None = None
    offered_at: float | None = None

    def without_offer(self) -> NotedRecovery:
        """A copy without the root that is not accepted yet."""
        return replace(self, offered=None, offered_at=None)


def adopt(
    noted: NotedRecovery | None, ends_at: float | None, named: Recovery | None, *, expires_at: float, now: float
) -> NotedRecovery | None:
    """The recovery data after a Valid Pinning Header.

    Args:
        noted: the data before: empty for a host that was known without a root; None for an unknown host.
        ends_at: when that data is forgotten; None if never.
        named: the root in the header, or None.
        expires_at: the Effective Expiration Date that the header sets.
        now: seconds since the epoch, UTC.
    """
    if noted is None:
        return None if named is None else NotedRecovery(named)
    if noted.standing is not None and (named is None or named.root != noted.standing.root):
        return replace(noted.without_offer(), until=ends_at)
    # A header can lengthen the life of a root, but not shorten it.
    noted = replace(noted, until=ends_at if ends_at is not None and ends_at > expires_at else None)
    if named is None or named == noted.standing:
        noted = noted.without_offer()
    elif noted.offered != named or noted.offered_at is None or noted.offered_at > now:
        noted = replace(noted, offered=named, offered_at=now)
    elif now - noted.offered_at >= ADOPTION:
        noted = replace(noted, standing=named).without_offer()
    return None if noted == NotedRecovery() else noted
