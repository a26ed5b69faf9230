"""The address of a server (DSN): for libpq, with a bound for every wait, and for people, without secrets."""

from __future__ import annotations

import re
from typing import NamedTuple

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

__all__ = ["Address", "described"]

# How long a statement may take, and how long it may wait for a lock (seconds).
_STATEMENT_S = 20
_LOCK_S = 5
# Defaults, which the address may override. A server that stops answering is given up after ten seconds.
_BOUNDS = {
    "connect_timeout": "3",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    # Of several hosts, the one that accepts writes.
    "target_session_attrs": "read-write",
    "application_name": "dynpin collect",
}


# The parts of an address that people may see, and common values of the other parts that are no secrets.
_SHOWN = ("host", "hostaddr", "port", "user", "dbname")
_COMMON = re.compile(
    "[0-9]{1,5}|disable|allow|prefer|require|verify-(ca|full)|any|read-(write|only)|primary|(prefer-)?standby|system|-c"
)


class Address(NamedTuple):
    """The address of a server.

    Attributes:
        name: the address for people, without secrets.
        conninfo: the address for libpq, with a bound for every wait.
        hidden: the texts that no message may contain, longest first.
    """

    name: str
    conninfo: str
    hidden: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Address:
        """Read an address.

        Raises:
            ValueError: if it cannot be read; the message shows nothing of the address, which may hold a password.
        """
        found = _parts(text)
        if found is None:
            raise ValueError(
                "the address of the report storage cannot be read; write postgresql://USER@HOST/DATABASE, and in a "
                "password %40 for @, %2F for /, %3A for : and %25 for %"
            )
        own = f"-c statement_timeout={_STATEMENT_S}s -c lock_timeout={_LOCK_S}s -c timezone=UTC"
        # The operator's options come last: PostgreSQL uses the last value of each.
        options = f"{own} {found.get('options', '')}".strip()
        conninfo = make_conninfo("", **{**_BOUNDS, **found, "options": options})
        return cls(described(text), conninfo, _hidden(found))

    def without_secrets(self, message: str) -> str:
        """A message of libpq or the server, with the secrets of the address replaced by "…"."""
        for value in self.hidden:
            message = message.replace(value, "…")
        return message


def described(address: str) -> str:
    """The address for people: only user, hosts, ports and database."""
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
    # The server may quote a part of the options, or of a list.
    parts = {part for value in values for part in re.split(r"[\s=,]+", value) if len(part) > 2}
    hidden = {value for value in values | parts if value and not _COMMON.fullmatch(value)}
    return tuple(sorted(hidden | {found["password"]} if found.get("password") else hidden, key=len, reverse=True))


def _parts(address: str) -> dict[str, str] | None:
    """The parts that libpq reads in the address. None if it cannot, or would read a part of the password as the host.

    libpq ends the password at the first @ and the host at the first /. If a password contains one of these, libpq
    shows the rest of it as a host. Its error messages also quote what it does not understand.
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
