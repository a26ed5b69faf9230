"""The policies that a middleware is given: as objects, as the files that describe them, or as keywords."""

from __future__ import annotations

import logging
import os

from dynpin.errors import PolicyError

from .policy import Policy, PolicyOptions

__all__ = ["PolicySource", "given_policies"]


logger = logging.getLogger("dynpin.middleware")

PolicySource = Policy | str | os.PathLike[str]


def given_policies(
    policy: PolicySource | None, report_only: PolicySource | None, options: PolicyOptions
) -> tuple[Policy, ...]:
    """The policies to send, enforcing first, with their files watched.

    Raises:
        PolicyError: where a policy is refused, or the two are not one of each kind.
    """
    first = _given(policy, options) if policy is not None or options or report_only is None else None
    second = None if report_only is None else _given(report_only, {})
    if second is not None and second.mode not in ("report-only", None):
        raise PolicyError(f"report_only= takes a policy of mode='report-only'; this one has mode={second.mode!r}")
    if first is not None and second is not None and first.mode == "report-only":
        raise PolicyError("two policies are report-only: a response carries one of each kind at most (RFC 7469 §2.2.1)")
    if second is not None and first is not None and first.header is not None and first.header.report_only:
        logger.warning(
            "The ramp stands at report-only, and until it moves up the header of report_only= is not sent: a response "
            "carries one of each kind at most (RFC 7469 §2.2.1)"
        )
    policies = tuple(each for each in (first, second) if each is not None)
    for each in policies:
        each.watch()
    return policies


def _given(policy: PolicySource | None, options: PolicyOptions) -> Policy:
    if isinstance(policy, Policy) and not options:
        return policy
    if policy is not None and (isinstance(policy, Policy) or options.keys() - {"on_invalid"}):
        raise PolicyError(f"a policy and the keywords of another are given ({', '.join(options)}): give one of the two")
    try:
        if policy is not None:
            return Policy.from_inventory(policy, on_invalid=options.get("on_invalid", "raise"))
        if "keys" in options:
            return Policy(**options)
    except TypeError as error:
        # A misspelt keyword is as much of a reason not to start as a bad policy.
        raise PolicyError(f"these keywords make no policy: {error}") from error
    raise PolicyError(
        "no policy is given: pass a Policy, the path of a dynpin.toml, or the keywords of a policy (keys=, backups=, "
        "max_age= and so on)"
    )
