"""Transports that a user gives to a pinned client of httpx or httpx2: test doubles, and transports around others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread

from dynpin.errors import PinValidationError, UnenforceableContext

from .names import Names, host_of_field
from .options import Lease, PinOptions
from .store import PinStore

__all__ = ["TLS_SCHEMES", "ChecksPins", "ClientWithPins", "admit", "host_of", "in_shielded_thread"]

TLS_SCHEMES = ("https", "wss")
# In one collection: a transport that caches may hold a million responses, and each request waits for the look.
_MOST_HELD = 1_000


class ChecksPins:
    """A base of the transports and clients of this package."""


class ClientWithPins(ChecksPins):
    """Goes before the class of a client: its transports check pins, also those that were put there later.

    Attributes:
        pin_admit: :func:`admit` with the library, the store and the options of this client.
    """

    pin_admit: Callable[[str, Any], Any]

    def _transport_for_url(self, url: Any) -> Any:  # noqa: ANN401 - the library's
        # The library's own, and private: but it is the only place that the transport of each request, redirects
        # included, comes from. Instrumentation of others puts transports around ours into the client's attributes.
        inherited: Any = super()
        return self.pin_admit("the client", inherited._transport_for_url(url))


def admit(
    library: Any,  # noqa: ANN401 - a module
    made: type[Any],
    option: str,
    given: Any,  # noqa: ANN401 - the library's transport
    *,
    store: PinStore | None,
    pin_options: PinOptions,
) -> Any:  # noqa: ANN401 - the library's transport
    """The transport to use for one that a user gives: this one, or one that looks at each of its requests.

    Args:
        library: the module, httpx or httpx2.
        made: the class of the pinned transports, synchronous or not, as the client is.
        option: what has it, for messages, such as the option.
        given: the transport, or None.
        store: the Known Pinned Hosts; None for the user's own store.
        pin_options: the options of the pinned client.

    Raises:
        UnenforceableContext: for the library's own transport, or one around it, which checks no pins.
    """
    if given is None or isinstance(given, OtherTransport) or _is_checked(library, given):
        return given
    for transport in (given, *_inside(library, given)):
        if isinstance(transport, (library.HTTPTransport, library.AsyncHTTPTransport)) and not isinstance(
            transport, ChecksPins
        ):
            raise UnenforceableContext(
                f"{option} has a {type(transport).__name__}, which connects without checking the pins: give a "
                f"{made.__module__}.{made.__name__}, which takes the same options"
            )
    return OtherTransport(library, given, store, pin_options)


def _is_checked(library: Any, transport: object) -> bool:  # noqa: ANN401 - a module
    """Whether a transport itself checks pins, or is a double in memory. One of the user's own may forward requests."""
    doubles = (library.MockTransport, library.ASGITransport, library.WSGITransport)
    return isinstance(transport, ChecksPins) or type(transport) in doubles


def _inside(library: Any, transport: object) -> list[object]:  # noqa: ANN401 - a module
    """The transports and clients that a transport holds in its attributes, and those inside these."""
    transports = (library.BaseTransport, library.AsyncBaseTransport)
    seen: dict[int, object] = {}
    waiting = _held(transport)
    while waiting:
        value = waiting.pop()
        if id(value) in seen or value is transport:
            continue
        seen[id(value)] = value
        if isinstance(value, (dict, list, tuple, set)):
            waiting += _elements(value)
        elif isinstance(value, transports) and not _is_checked(library, value):
            waiting += _held(value)
    return [value for value in seen.values() if isinstance(value, (*transports, library.Client, library.AsyncClient))]


def _held(holder: object) -> list[object]:
    """The values of an object's attributes, and of those of its class."""
    return [getattr(holder, "__dict__", {}), *(dict(vars(kind)) for kind in type(holder).__mro__[:-1])]


def _elements(collection: Any) -> list[Any]:  # noqa: ANN401 - of any of the kinds above
    get_values = getattr(collection, "values", None)  # of a dict
    return list(collection if get_values is None else get_values())[:_MOST_HELD]


class OtherTransport:
    """Looks at each request of a transport that gives no access to its TLS, or has other transports inside.

    If all that is inside checks pins when the request is sent, so does the transport: one that retries or caches, for
    example. Otherwise it may connect to all but Known Pinned Hosts.
    """

    def __init__(self, library: Any, transport: Any, store: PinStore | None, options: PinOptions) -> None:  # noqa: ANN401
        self._library = library
        self._transport = transport
        self._store = store
        self._options = options
        self._lease: Lease | None = None
        if not self._is_checked_inside():
            self._pins()  # a store that has to be opened is opened now

    def _pins(self) -> Names:
        if self._lease is None:
            self._lease = Lease(self._store, self)
        return Names(self._lease.store, self._options)

    def _is_checked_inside(self) -> bool:
        library, inside = self._library, _inside(self._library, self._transport)
        clients = (library.Client, library.AsyncClient)
        checked = [one for one in inside if _is_checked(library, one)]
        # One that holds others counts for nothing itself: what is inside it is among these too.
        around = [one for one in inside if not isinstance(one, clients) and _inside(library, one)]
        return bool(checked) and all(one in checked or one in around for one in inside)

    def handle_request(self, request: Any) -> Any:  # noqa: ANN401 - the library's
        """Call the transport's own method, unless the host is pinned."""
        self._look_at(request)
        return self._transport.handle_request(request)

    async def handle_async_request(self, request: Any) -> Any:  # noqa: ANN401 - the library's
        """Call the transport's own method, unless the host is pinned."""
        self._look_at(request)
        return await self._transport.handle_async_request(request)

    def _look_at(self, request: Any) -> None:  # noqa: ANN401 - the library's
        if request.url.scheme not in TLS_SCHEMES or self._is_checked_inside():
            return
        try:
            self._pins().hold([host_of(request), *map(host_of_field, request.headers.get_list("host"))], None)
        except PinValidationError as violation:
            said = (
                f"{host_of(request)} is pinned, and a {type(self._transport).__name__} gives no access to its TLS "
                "connection, so the pins cannot be checked. No request was sent. Give a PinnedTransport, alone or "
                "inside it; or, for a test, MockTransport, ASGITransport or WSGITransport"
            )
            explained = PinValidationError(said, validation=violation.validation)
            raise self._library.ConnectError(said) from explained

    def _end(self) -> None:
        if self._lease is not None:
            self._lease.end()

    def close(self) -> None:
        """Call the transport's own method."""
        self._transport.close()
        self._end()

    async def aclose(self) -> None:
        """Call the transport's own method."""
        await self._transport.aclose()
        await in_shielded_thread(self._end)

    def __enter__(self) -> OtherTransport:
        self._transport.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._transport.__exit__(*exc_info)
        self._end()

    async def __aenter__(self) -> OtherTransport:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._transport.__aexit__(*exc_info)
        await in_shielded_thread(self._end)


def host_of(request: Any) -> str:  # noqa: ANN401 - the library's
    """The host of a request in ASCII, as TLS gets it."""
    raw: bytes = request.url.raw_host
    return raw.decode("ascii")


async def in_shielded_thread(act: Callable[[], object]) -> None:
    """Run a function outside the event loop's thread, whatever is cancelled: closing a store may wait for the disk."""
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(act)
