"""The rules of this process: stores with their options, each opened at the first connection."""

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
    """One store and its options, for every context of the process.

    Attributes:
        store: the Known Pinned Hosts.
        enforcement: decides with the store and the options.
        names: checks the names of a request against that of TLS.
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
        # Imported here: it takes longer than the start of Python itself.
        from ..healing import Healing  # noqa: PLC0415
        from ..names import Names  # noqa: PLC0415
        from ..options import Lease, enforcement_of  # noqa: PLC0415
        from ..reports import ReportQueue  # noqa: PLC0415

        opened = Lease(store, cls).store
        # botocore, and urllib3's assert_hostname, switch off TLS's check of the name and do it after the handshake.
        enforcement = enforcement_of(opened, options, matches_names=True)
        reporter = options.get("reporter", "all")
        if isinstance(reporter, str):
            # Reports trust the roots of the system: the program's first context may trust anything.
            enforcement.reporter = ReportQueue(opened, mode=reporter)
        if options.get("recovery", "on") == "on":
            enforcement.healer = Healing(opened)
        return cls(opened, enforcement, Names(opened, options))

    def holds(self, *classes: type) -> bool:
        """Whether connections of these classes are checked against the pins, or exempt like those of a probe."""
        return all(
            getattr(one, "dynpin_exempt", False) or self.enforcement in getattr(one, "dynpin_enforcements", ())
            for one in classes
        )

    def harden(self, context: ssl.SSLContext) -> None:
        """Apply the rule to the context.

        Raises:
            UnenforceableContext: if that cannot be done, or if a probe cannot confirm that it works.
        """
        from ..enforcement import guard  # noqa: PLC0415 - as above

        guard(context, self.enforcement)


# The rules by number. No lock: if two threads make the same rule at once, both use the first one.
_makers: list[Callable[[], Rule]] = []
_made: dict[int, Rule] = {}


def add_rule(rule: Rule) -> None:
    """Apply a rule to every context from now on, unless an equal rule applies already."""
    if not any(rule.enforcement.same_as(other.enforcement) for other in rules()):
        _makers.append(lambda: rule)


def add_later(path: str, options: PinOptions) -> None:
    """Apply a store to every context from now on. Its file is opened at the first client connection."""

    def make() -> Rule:
        from ..store import PinStore  # noqa: PLC0415 - as above

        return Rule.of(PinStore(path), options)

    _makers.append(make)


def rules() -> list[Rule]:
    """All rules, opened now if they were not.

    Raises:
        StoreError: if a store cannot be opened.
    """
    return [_made.get(number) or _made.setdefault(number, make()) for number, make in enumerate(_makers)]


def is_injected() -> bool:
    """Whether any rule applies in this process."""
    return bool(_makers)
