"""The options of every client besides its library's own: how pins are enforced, and the store behind it."""

from __future__ import annotations

import ssl
import weakref
from collections.abc import Callable, Iterable
from typing import Literal, Protocol, TypedDict, TypeVar, Unpack, cast

from dynpin.errors import PinValidationError

from .enforcement import Enforcement, OnMismatch, PrivateRoots, Reporter, guard
from .healing import Healing
from .reports import ReportMode, ReportQueue
from .store import PinStore, default_path

__all__ = ["Harden", "Lease", "PinOptions", "enforce", "enforcement_of", "hardener", "split_options"]

_Context = TypeVar("_Context", bound=ssl.SSLContext)


class PinOptions(TypedDict, total=False):
    """How pins are enforced. :func:`enforce` and every client of this package take these options.

    Attributes:
        on_mismatch: ``"refuse"`` (the default), or ``"report"`` to let a connection through even if it fails Pin
            Validation. The failure is logged and reported, and the response notes nothing. This protects nobody. It
            shows what would be refused, before you enforce.
        private_roots: ``"enforce"`` (the default), or ``"bypass"`` for the browsers' rule: no Pin Validation for a
            chain that ends in a root which is not public (RFC 7469 §2.6).
        public_roots: the public roots for that rule, DER; None for those of `certifi`.
        on_violation: called with each :class:`~dynpin.PinValidationError` before it is raised.
        reporter: what happens with the violation report if the host has a report-uri (RFC 7469 §3). ``"all"`` (the
            default) keeps it in the store and sends it in the background. ``"same-domain"`` does so only if the
            report-uri is within the pinned host's own registrable domain. ``"off"`` or None sends nothing. A
            :class:`~dynpin.clientstore.Reporter` of your own receives it.
        allow_renegotiation: True lets a server ask for a client certificate in the middle of a TLS 1.2 connection, as
            IIS does. The pins are then checked only at the first handshake. The default is False.
        recovery: ``"on"`` (the default) looks at the signed list of a noted root, in the background, after a refusal.
            ``"off"`` never does.
    """

    on_mismatch: OnMismatch
    private_roots: PrivateRoots
    public_roots: Iterable[bytes] | None
    on_violation: Callable[[PinValidationError], None] | None
    reporter: Reporter | ReportMode | None
    allow_renegotiation: bool
    recovery: Literal["on", "off"]


# The first value of each is the default. A misspelt value must not mean the opposite.
_CHOICES: dict[str, tuple[object, ...]] = {
    "on_mismatch": ("refuse", "report"),
    "private_roots": ("enforce", "bypass"),
    "reporter": ("all", "same-domain", "off"),
    "allow_renegotiation": (False, True),
    "recovery": ("on", "off"),
}


_DER = b"\x30"  # the first byte of each certificate


class Harden(Protocol):
    """:func:`enforce` with one client's store and options."""

    def __call__(self, context: _Context, /) -> _Context:
        """Harden the context, and return it."""
        ...


def enforce(context: _Context, store: PinStore, **options: Unpack[PinOptions]) -> _Context:
    """Make every connection of this context refuse wrong keys before it sends a request, and return the context.

    It works on any client ``ssl.SSLContext``. Your own roots, client certificates and options stay as they are. A
    refusal raises :class:`~dynpin.PinValidationError` out of the handshake. HTTP libraries treat it as a certificate
    failure.

    Args:
        context: the context to harden. It must verify certificates and host names. If it does not, connections to
            Known Pinned Hosts are refused and nothing is noted.
        store: the Known Pinned Hosts.
        options: see :class:`PinOptions`.

    Raises:
        UnenforceableContext: if pins cannot be enforced on it: on a server's context, on an object that is not a
            context, or on one that leaves verification to the operating system.
    """
    return hardener(store, options)(context)


def hardener(store: PinStore, options: PinOptions) -> Harden:
    """A function that hardens all contexts of one client alike: a client may make one for every connection.

    Raises:
        TypeError: for an option that does not exist.
    """
    enforcement = enforcement_of(store, options)
    reporter = options.get("reporter", "all")

    def harden(context: _Context, /) -> _Context:
        if enforcement.reporter is None and isinstance(reporter, str):
            # The queue's connections trust the roots of the first context.
            enforcement.reporter = ReportQueue(store, mode=reporter, context=context)
        if enforcement.healer is None and options.get("recovery", "on") == "on":
            enforcement.healer = Healing(store, context=context)
        guard(context, enforcement)
        return context

    return harden


def enforcement_of(store: PinStore, options: PinOptions, *, matches_names: bool = False) -> Enforcement:
    """The rule of one client. Its reporter is the caller's own; for a word of :class:`PinOptions` it is not set yet.

    Args:
        store: the Known Pinned Hosts.
        options: how they are enforced.
        matches_names: see :class:`~dynpin.clientstore.enforcement.Enforcement`.

    Raises:
        TypeError: for an option that does not exist.
    """
    unknown = sorted(options.keys() - PinOptions.__annotations__.keys())
    if unknown:
        raise TypeError(f"there is no option {', '.join(unknown)}; there are {', '.join(PinOptions.__annotations__)}")
    for name, allowed in _CHOICES.items():
        value = options.get(name, allowed[0])
        if name == "reporter" and not isinstance(value, str):
            continue  # an object of the caller's, or None
        if value not in allowed or type(value) is not type(allowed[0]):
            raise ValueError(f"{name} is {' or '.join(map(repr, allowed))}, not {value!r}")
    if not callable(options.get("on_violation") or print):
        raise TypeError(f"on_violation must be a function, not {options.get('on_violation')!r}")
    reporter = options.get("reporter", "all")
    if not (reporter is None or isinstance(reporter, str) or callable(getattr(reporter, "add", None))):
        raise TypeError(f"reporter must have a method add(report, report_uri), not be {reporter!r}")
    public = _public_roots(options.get("public_roots"))
    return Enforcement(
        store,
        on_mismatch=options.get("on_mismatch", "refuse"),
        private_roots=options.get("private_roots", "enforce"),
        public_roots=public,
        on_violation=options.get("on_violation"),
        reporter=None if isinstance(reporter, str) else reporter,
        allow_renegotiation=options.get("allow_renegotiation", False),
        matches_names=matches_names,
        asked=(store, {**options, "public_roots": public}),
    )


def _public_roots(given: object) -> frozenset[bytes] | None:
    """The public roots. A root that is not DER would match none: each chain would be private, and would pass."""
    if given is None:
        return None
    # The elements of a text are texts, and those of bytes are numbers.
    roots = frozenset(cast("Iterable[object]", given))
    of_der = frozenset(root for root in roots if isinstance(root, bytes) and root[:1] == _DER)
    if len(of_der) < len(roots):
        raise TypeError(
            "public_roots must be certificates in DER, each as bytes, and not a file or PEM; for PEM:  "
            "[ssl.PEM_cert_to_DER_cert(pem) for pem in ...]"
        )
    return of_der


def split_options(options: dict[str, object]) -> PinOptions:
    """Remove the options of :class:`PinOptions` from a client's keyword arguments; the library's own stay."""
    return cast("PinOptions", {name: options.pop(name) for name in PinOptions.__annotations__ if name in options})


class Lease:
    """The store of one client: the one that it was given, or the user's own, which all clients without one share.

    The shared store's connections close when the last of its clients is closed or garbage-collected. If a client is
    used again afterwards, they open again.

    Args:
        store: the store that the client was given, or None.
        client: the client; the lease ends when it is garbage-collected.
    """

    def __init__(self, store: PinStore | None, client: object) -> None:
        token = object()
        self.store = _shared(token) if store is None else store
        self._end = weakref.finalize(client, _let_go, self.store, token) if store is None else None

    def end(self) -> None:
        """End the lease, because the client is closed. A store that the client was given stays open.

        A client that was used again after its end may end the lease again.
        """
        if self._end is not None:
            self._end()
            _rest_unused(self.store)


_stores: dict[str, PinStore] = {}
# One token for each lease of a shared store. Any thread may add or remove one.
_leases: dict[int, set[object]] = {}


def _shared(token: object) -> PinStore:
    path = str(default_path())
    store = _stores.get(path)
    if store is None:
        store = _stores.setdefault(path, PinStore())
    _leases.setdefault(id(store), set()).add(token)
    return store


def _let_go(store: PinStore, token: object) -> None:
    """End a lease from a finalizer. It may run at any point of the program, so it waits for nothing."""
    _leases[id(store)].discard(token)
    if not _leases[id(store)]:
        store.database.rest_later()


def _rest_unused(store: PinStore) -> None:
    if not _leases[id(store)]:
        store.rest()
