"""The address of a server (DSN): what libpq takes, with bounds for every wait; and as people may see it."""

from __future__ import annotations

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
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(address).items() if value is not None}
    except ProgrammingError:
        # libpq's own message quotes the part that it does not understand, which may be the password.
        raise ValueError(
            "the address of the report storage cannot be read; write postgresql://USER@HOST/DATABASE, and in a "
            "password %40 for @, %2F for /, %3A for : and %25 for %"
        ) from None
    own = f"-c statement_timeout={_STATEMENT_S}s -c lock_timeout={_LOCK_S}s -c timezone=UTC"
    # The later one holds, which is the operator's.
    options = f"{own} {found.get('options', '')}".strip()
    return make_conninfo("", **{**_BOUNDS, **found, "options": options})


def described(address: str) -> str:
    """The address without its password and its options."""
    try:
        found = conninfo_to_dict(address)
    except ProgrammingError:
        return "postgresql://…"
    hosts = str(found.get("host") or found.get("hostaddr") or "").split(",")
    ports = str(found.get("port") or "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    where = ",".join(
        f"{host}:{port}" if port and not host.startswith("/") else host
        for host, port in zip(hosts, ports, strict=False)
    )
    user = f"{found['user']}@" if found.get("user") else ""
    return f"postgresql://{user}{where}/{found.get('dbname') or ''}"
