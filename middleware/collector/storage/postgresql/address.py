"""The address of a server (DSN): what libpq takes, with bounds for every wait; and as people may see it."""

from __future__ import annotations

import re
from typing import NamedTuple

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

__all__ = ["Address", "described"]

# How long a statement may take, and wait for a lock of others.
_STATEMENT_S = 20
_LOCK_S = 5
# What holds where the address says nothing else. A server that is gone without a word is given up after ten seconds.
_BOUNDS = {
    "connect_timeout": "3",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    # Of several hosts, the one that takes what is written.
    "target_session_attrs": "read-write",
    "application_name": "dynpin collect",
}


# All of an address that may be seen; of the rest, the values that libpq names by itself and that are nobody's secret.
_SHOWN = ("host", "hostaddr", "port", "user", "dbname")
_COMMON = re.compile(
    "[0-9]{1,5}|disable|allow|prefer|require|verify-(ca|full)|any|read-(write|only)|primary|(prefer-)?standby|system|-c"
)


class Address(NamedTuple):
    """The address of a server.

    Attributes:
        name: as people may see it.
        conninfo: as libpq takes it, with a bound for every wait.
        hidden: what may stand in no message, the longest first.
    """

    name: str
    conninfo: str
    hidden: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Address:
        """Read an address.

        Raises:
            ValueError: where it cannot be read; what stands in it, such as a password, is not told.
        """
        found = _parts(text)
        if found is None:
            raise ValueError(
                "the address of the report storage cannot be read; write postgresql://USER@HOST/DATABASE, and in a "
                "password %40 for @, %2F for /, %3A for : and %25 for %"
            )
        own = f"-c statement_timeout={_STATEMENT_S}s -c lock_timeout={_LOCK_S}s -c timezone=UTC"
        # The later one holds, which is the operator's.
        options = f"{own} {found.get('options', '')}".strip()
        conninfo = make_conninfo("", **{**_BOUNDS, **found, "options": options})
        return cls(described(text), conninfo, _hidden(found))

    def without_secrets(self, message: str) -> str:
        """A message of libpq or of the server, which quote values of the address, as people may see it."""
        for value in self.hidden:
            message = message.replace(value, "…")
        return message


def described(address: str) -> str:
    """The address as people may see it: user, hosts, ports and database, whatever else stands in it."""
    found = _parts(address)
    if found is None:
        return "postgresql://…"
    hosts = (found.get("host") or found.get("hostaddr") or "").split(",")
    ports = found.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    where = ",".join(
        f"{host}:{port}" if port and not host.startswith("/") else host
        for host, port in zip(hosts, ports, strict=False)
    )
    user = f"{found['user']}@" if found.get("user") else ""
    return f"postgresql://{user}{where}/{found.get('dbname') or ''}"


def _hidden(found: dict[str, str]) -> tuple[str, ...]:
    values = {value for name, value in found.items() if name not in _SHOWN}
    # The server quotes a part of the options, or of a list.
    parts = {part for value in values for part in re.split(r"[\s=,]+", value) if len(part) > 2}
    hidden = {value for value in values | parts if value and not _COMMON.fullmatch(value)}
    return tuple(sorted(hidden | {found["password"]} if found.get("password") else hidden, key=len, reverse=True))


def _parts(address: str) -> dict[str, str] | None:
    """What libpq reads in the address; None where it cannot, or would take some of the password for something else.

    libpq ends the password at the first @ and the host at the first /, and so shows the rest of a password that has one
    of these. Its own message, too, quotes what it does not understand.
    """
    before, _, after = address.partition("://")[2].partition("@")
    is_split = "@" in after.partition("?")[0] or (bool(after) and "/" in before and "?" not in before)
    if is_split or not address.isprintable():
        return None
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(address).items() if value is not None}
    except ProgrammingError:
        return None
    return found if re.fullmatch("[0-9,]*", found.get("port", "")) else None
