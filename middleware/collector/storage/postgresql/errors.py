"""Turn errors of PostgreSQL and its network into a StoreError that names the server, the cause and what to do."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dynpin.errors import StoreError

from .address import Address

__all__ = ["is_away", "is_worth_another_try", "storage_errors"]

# By the SQLSTATE, or its class: https://www.postgresql.org/docs/current/errcodes-appendix.html
_CAUSES = {
    "25006": "the server accepts no writes: it is a standby, or has default_transaction_read_only; name every host of "
    "the pair, such as postgresql://a,b/NAME",
    "42501": "the user lacks a right; make the user the owner of the database",
    "42P01": "a table is missing; run  dynpin collect migrate  once, with the same --storage",
    "53100": "the disk of the server is full; free some space on it, then keep fewer reports:  dynpin collect prune "
    "--megabytes N",
    "55P03": "another process has held a lock for too long; dynpin tries again",
    "57014": "a statement took too long; dynpin tries again",
    "57P": "the server is starting or shutting down; dynpin tries again",
}
# A full disk under the log of changes: https://www.postgresql.org/docs/current/disk-full.html
_FULL_LOG = (
    "the disk of the server's pg_wal is full, so PostgreSQL ends; free some space on that disk, but delete nothing in "
    "pg_wal, and start PostgreSQL again"
)
# Another try may succeed: a deadlock, a serialisation failure.
_PASSING = ("40001", "40P01")
# The server has answered, and no later try will succeed. There is no session yet, so there is no SQLSTATE: only its
# text. In another language than English it is taken for a server that is away, which waits and says the same.
_REFUSALS = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")
# States that end: a lost connection, a full disk, a server that starts or stops, a standby, a lock.
_ENDING = ("08", "25006", "53", "55P03", "57")


@contextmanager
def storage_errors(address: Address) -> Generator[None]:
    """Turn errors of SQLAlchemy and psycopg into a StoreError that shows no secret of the address."""
    name = address.name
    try:
        yield
    except StoreError:
        raise
    except PoolTimeout as error:
        raise StoreError(
            f"the report storage {name} cannot be used: every connection is busy; dynpin tries again"
        ) from error
    except (DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StoreError(
            f"the report storage {name} cannot be used: {address.without_secrets(_cause(cause or error))}"
        ) from error


def is_worth_another_try(error: StoreError) -> bool:
    """Whether the transaction may be tried once more: the connection was lost, or another transaction came first."""
    cause = _raised(error)
    if not isinstance(cause, psycopg.Error):
        return False
    state = cause.sqlstate or ""
    return state in _PASSING or state.startswith(("57P", "08", "25006")) or not state


def is_away(error: StoreError) -> bool:
    """Whether the server may be used later without a change here: it is down, starts, or has a full disk."""
    cause = _raised(error)
    if isinstance(cause, psycopg.Error) and cause.sqlstate:
        return cause.sqlstate.startswith(_ENDING)
    return cause is not None and not any(text in str(cause) for text in _REFUSALS)


def _raised(error: StoreError) -> BaseException | None:
    """The error of psycopg or of the pool that became this one."""
    raised = error.__cause__
    return raised.orig if isinstance(raised, DBAPIError) else raised


def _cause(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None) or ""
    told = next((_CAUSES[key] for key in (state, state[:3], state[:2]) if key in _CAUSES), "")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # libpq has the cause on the first line; the others explain it, or quote the statement.
    text = lines[0] if lines else type(error).__name__
    if "session is read-only" in text:
        told = _CAUSES["25006"]  # libpq itself has checked it (target_session_attrs)
    if state == "53100" and "pg_wal" in text:
        told = _FULL_LOG
    if told:
        return f"{told} ({text})"
    # If there was no session, libpq has a text and no SQLSTATE.
    return (
        f"{text}; check that the server runs (if not, its log says why) and can be reached from here, and check "
        "database, user and password"
    )
