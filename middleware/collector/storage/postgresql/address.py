"""The address of a server (DSN): what libpq takes, with bounds for every wait; and as people may see it."""

from __future__ import annotations

import re

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

__all__ = ["bounded", "described"]

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


def bounded(address: str) -> str:
    """The address as libpq takes it, with a bound for every wait.

    Raises:
        ValueError: where the address cannot be read; what stands in it, such as a password, is not told.
    """
    found = _parts(address)
    if found is None:
        raise ValueError(
            "the address of the report storage cannot be read; write postgresql://USER@HOST/DATABASE, and in a "
            "password %40 for @, %2F for /, %3A for : and %25 for %"
        )
    own = f"-c statement_timeout={_STATEMENT_S}s -c lock_timeout={_LOCK_S}s -c timezone=UTC"
    # The later one holds, which is the operator's.
    options = f"{own} {found.get('options', '')}".strip()
    return make_conninfo("", **{**_BOUNDS, **found, "options": options})


def described(address: str) -> str:
    """The address without its password and its options."""
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
