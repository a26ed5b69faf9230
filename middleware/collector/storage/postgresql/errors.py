"""What PostgreSQL and the way to it raise, as a StoreError that names the server, the cause and what to do."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dynpin.errors import StoreError

from .address import Address

__all__ = ["is_worth_another_try", "storage_errors"]

# By the SQLSTATE, or its class: https://www.postgresql.org/docs/current/errcodes-appendix.html
_CAUSES = {
    "25006": "the server takes no writes, as a standby does, and every server with default_transaction_read_only; name "
    "every host of the pair, such as postgresql://a,b/NAME",
    "42501": "the user has no right to that; make it the owner of the database",
    "42P01": "a table is missing; run  dynpin collect migrate  once, with the same --storage",
    "53100": "the disk of the server is full; free some space on it. After that  dynpin collect prune --megabytes N  "
    "keeps less",
    "55P03": "another process has held a lock for too long; it is tried again",
    "57014": "a statement took too long; it is tried again",
    "57P": "the server is starting or shutting down; it is tried again",
}
# What another try may find gone: a deadlock, a serialisation failure.
_PASSING = ("40001", "40P01")


@contextmanager
def storage_errors(address: Address) -> Generator[None]:
    """Turn what SQLAlchemy and psycopg raise into a StoreError, which shows nothing secret of the address."""
    name = address.name
    try:
        yield
    except StoreError:
        raise
    except PoolTimeout as error:
        raise StoreError(
            f"the report storage {name} cannot be used: every connection is busy; it is tried again"
        ) from error
    except (DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StoreError(
            f"the report storage {name} cannot be used: {address.without_secrets(_cause(cause or error))}"
        ) from error


def is_worth_another_try(error: StoreError) -> bool:
    """Whether the connection was lost, or the transaction gave way to another: what it did may be tried once more."""
    raised = error.__cause__
    cause = raised.orig if isinstance(raised, DBAPIError) else raised
    if not isinstance(cause, psycopg.Error):
        return False
    state = cause.sqlstate or ""
    return state in _PASSING or state.startswith(("57P", "08", "25006")) or not state


def _cause(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None) or ""
    told = next((_CAUSES[key] for key in (state, state[:3], state[:2]) if key in _CAUSES), "")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # libpq says it on the first line; the others explain it, or point at the statement.
    text = lines[0] if lines else type(error).__name__
    if "session is read-only" in text:
        told = _CAUSES["25006"]  # libpq has found it out by itself (target_session_attrs)
    if told:
        return f"{told} ({text})"
    # Where no session was begun, libpq has a text for it and no SQLSTATE.
    return f"{text}; check that the server runs and can be reached from here, and the database, user and password"
