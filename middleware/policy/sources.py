"""The policy of a middleware: from an object, a file or keywords."""

from __future__ import annotations

import logging
import os

from dynpin.errors import PolicyError

from .policy import Policy, PolicyOptions

__all__ = ["PolicySource", "policies_to_send"]


logger = logging.getLogger("dynpin.middleware")

PolicySource = Policy | str | os.PathLike[str]


def policies_to_send(
    policy: PolicySource | None, report_only: PolicySource | None, options: PolicyOptions
) -> tuple[Policy, ...]:
    """The policies of a middleware, the enforced one first. Their files are watched from now on.

    Args:
        policy: the policy, or the path of its ``dynpin.toml``; None if `options` make it, or there is only
            `report_only`.
        report_only: a second policy, of mode ``"report-only"``, or None.
        options: the keywords of the policy, if it is made from them.

    Raises:
        PolicyError: if a policy is refused, or both are of one mode.
    """
    main = _policy_of(policy, options) if policy is not None or options or report_only is None else None
    trial = None if report_only is None else _policy_of(report_only, {})
    if trial is not None and trial.mode not in ("report-only", None):
        raise PolicyError(f"report_only= takes a policy of mode='report-only'; this one has mode={trial.mode!r}")
    if main is not None and trial is not None:
        _check_both(main)
    policies = tuple(each for each in (main, trial) if each is not None)
    for each in policies:
        each.watch()
    return policies


def _check_both(main: Policy) -> None:
    """Check that a report-only policy may be sent in addition: a response has one header of each kind (§2.2.1)."""
    if main.mode == "report-only":
        raise PolicyError(
            "two policies are report-only: a response has at most one header of each kind (RFC 7469 §2.2.1)"
        )
    if main.header is not None and main.header.report_only:
        logger.warning(
            "The ramp is at report-only, and until it moves up, the header of report_only= is not sent: a response "
            "has at most one header of each kind (RFC 7469 §2.2.1)"
        )


def _policy_of(policy: PolicySource | None, options: PolicyOptions) -> Policy:
    if isinstance(policy, Policy) and not options:
        return policy
    if policy is not None and (isinstance(policy, Policy) or options.keys() - {"on_invalid"}):
        raise PolicyError(f"there is a policy and also keywords ({', '.join(options)}): pass only one of the two")
    try:
        if policy is not None:
            return Policy.from_inventory(policy, on_invalid=options.get("on_invalid", "raise"))
        if "keys" in options:
            return Policy(**options)
    except TypeError as error:
        # A misspelt keyword must stop the start, as a bad policy does.
        raise PolicyError(f"these keywords do not make a policy: {error}") from error
    raise PolicyError(
        "there is no policy: pass a Policy, the path of a dynpin.toml, or the keywords of a policy (keys=, backups=, "
        "max_age= and so on)"
    )
