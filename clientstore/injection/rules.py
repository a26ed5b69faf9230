"""What has been injected into this process: stores with their options, each made when the first connection asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from ..enforcement import Enforcement
    from ..names import Names
    from ..options import PinOptions
    from ..store import PinStore

__all__ = ["Rule", "add_later", "add_rule", "is_injected", "rules"]


class Rule(NamedTuple):
    """One store and its options, as they hold for every context.

    Attributes:
        store: the Known Pinned Hosts.
        enforcement: what decides by it, and by the options.
        names: what holds the names of a request against that of TLS.
    """

    store: PinStore
    enforcement: Enforcement
    names: Names

    @classmethod
    def of(cls, store: PinStore | None, options: PinOptions) -> Rule:
        """Open the store.

        Raises:
            StoreError: if it cannot be opened.
            TypeError: for an option that does not exist.
        """
        # Here, since they take longer than Python itself to start.
        from ..healing import Healing  # noqa: PLC0415
        from ..names import Names  # noqa: PLC0415
        from ..options import Lease, enforcement_of  # noqa: PLC0415
        from ..reports import ReportQueue  # noqa: PLC0415

        opened = Lease(store, cls).store
        # botocore switches the check of the name off, and does it after the handshake; urllib3's assert_hostname too.
        enforcement = enforcement_of(opened, options, matches_names=True)
        reporter = options.get("reporter", "all")
        if isinstance(reporter, str):
            # It trusts the roots of the system: the program's first context may trust anything.
            enforcement.reporter = ReportQueue(opened, mode=reporter)
        if options.get("recovery", "on") == "on":
            enforcement.healer = Healing(opened)
        return cls(opened, enforcement, Names(opened, options))

    def holds(self, *classes: type) -> bool:
        """Whether connections of these classes are checked against the pins, or are exempt, as those of a probe."""
        return all(
            getattr(one, "dynpin_exempt", False) or self.enforcement in getattr(one, "dynpin_enforcements", ())
            for one in classes
        )

    def harden(self, context: ssl.SSLContext) -> None:
        """Have it hold for the context.

        Raises:
            UnenforceableContext: if that cannot be done, or would not be seen to work.
        """
        from ..enforcement import guard  # noqa: PLC0415 - as above

        guard(context, self.enforcement)


# A rule by its number. No lock: of two threads that make the same one at once, both use that of the first.
_makers: list[Callable[[], Rule]] = []
_made: dict[int, Rule] = {}


def add_rule(rule: Rule) -> None:
    """Have a rule hold for every context from now on, unless the same one does already."""
    if not any(rule.enforcement.same_as(other.enforcement) for other in rules()):
        _makers.append(lambda: rule)


def add_later(path: str, options: PinOptions) -> None:
    """Have a store hold for every context from now on; its file is opened at the first client connection."""

    def make() -> Rule:
        from ..store import PinStore  # noqa: PLC0415 - as above

        return Rule.of(PinStore(path), options)

    _makers.append(make)


def rules() -> list[Rule]:
    """All rules, made now where they were not.

    Raises:
        StoreError: if a store cannot be opened.
    """
    return [_made.get(number) or _made.setdefault(number, make()) for number, make in enumerate(_makers)]


def is_injected() -> bool:
    """Whether any rule holds in this process."""
    return bool(_makers)
