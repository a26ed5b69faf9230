"""What a middleware is to send: a policy as an object, as the file that describes it, or as keywords."""

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
    """The policies of a middleware, the enforced one first; their files are watched from now on.

    Args:
        policy: the policy, or the path of its ``dynpin.toml``; None if `options` make it, or `report_only` is alone.
        report_only: a second policy, of mode ``"report-only"``, or None.
        options: the keywords of the policy, where it is made from them.

    Raises:
        PolicyError: if a policy is refused, or the two are not one of each mode.
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
    """Whether a report-only policy may be sent beside this one: a response carries one header of each kind (§2.2.1)."""
    if main.mode == "report-only":
        raise PolicyError("two policies are report-only: a response carries one of each kind at most (RFC 7469 §2.2.1)")
    if main.header is not None and main.header.report_only:
        logger.warning(
            "The ramp stands at report-only, and until it moves up the header of report_only= is not sent: a response "
            "carries one of each kind at most (RFC 7469 §2.2.1)"
        )


def _policy_of(policy: PolicySource | None, options: PolicyOptions) -> Policy:
    if isinstance(policy, Policy) and not options:
        return policy
    if policy is not None and (isinstance(policy, Policy) or options.keys() - {"on_invalid"}):
        raise PolicyError(f"there is a policy, and keywords of another ({', '.join(options)}): pass one of the two")
    try:
        if policy is not None:
            return Policy.from_inventory(policy, on_invalid=options.get("on_invalid", "raise"))
        if "keys" in options:
            return Policy(**options)
    except TypeError as error:
        # A misspelt keyword is as much of a reason not to start as a bad policy.
        raise PolicyError(f"these keywords make no policy: {error}") from error
    raise PolicyError(
        "there is no policy: pass a Policy, the path of a dynpin.toml, or the keywords of a policy (keys=, backups=, "
        "max_age= and so on)"
    )
