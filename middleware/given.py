"""The policies that a middleware is given: as objects, or as the keywords of one."""

from __future__ import annotations

from dynpin.errors import PolicyError
from dynpin.middleware.policy import Policy, PolicyOptions

__all__ = ["given_policies"]


def given_policies(policy: Policy | None, report_only: Policy | None, options: PolicyOptions) -> tuple[Policy, ...]:
    """The policies to send, enforcing first, with their files watched.

    Raises:
        PolicyError: where a policy is refused, or the two are not one of each kind.
    """
    if policy is not None and options:
        raise PolicyError(f"a policy and the keywords of another are given ({', '.join(options)}): give one of the two")
    if policy is None and (options or report_only is None):
        if "keys" not in options:
            raise PolicyError("no policy is given: pass a Policy, or its keywords: keys=, backups=, max_age= and so on")
        try:
            policy = Policy(**options)
        except TypeError as error:
            # A misspelt keyword is as much of a reason not to start as a bad policy.
            raise PolicyError(f"these keywords make no policy: {error}") from error
    if report_only is not None and report_only.mode != "report-only":
        raise PolicyError(f"report_only= takes a policy of mode='report-only'; this one has mode={report_only.mode!r}")
    if report_only is not None and policy is not None and policy.mode == "report-only":
        raise PolicyError("two policies are report-only: a response carries one of each kind at most (RFC 7469 §2.2.1)")
    policies = tuple(each for each in (policy, report_only) if each is not None)
    for each in policies:
        each.watch()
    return policies
