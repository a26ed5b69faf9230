"""What a policy will do to its users: a population of clients, a calendar of events, policies side by side.

A :class:`Study` is read from TOML, :func:`simulate` plays it, :func:`advise` searches the policy for the operator's own
numbers. Which chain a client accepts and what it notes is decided by :func:`dynpin.validation.validate` and
:func:`dynpin.noting.note`; only the arithmetic of expiry is done here, on arrays.
"""

from dynpin.lab.simulation.advice import Advice, Risks, advise
from dynpin.lab.simulation.policy import SitePolicy
from dynpin.lab.simulation.population import PRESETS, Group, Population
from dynpin.lab.simulation.recovery import Recovery
from dynpin.lab.simulation.run import Outcome, simulate
from dynpin.lab.simulation.study import Study, read_study
from dynpin.lab.simulation.traces import Traces

__all__ = [
    "PRESETS",
    "Advice",
    "Group",
    "Outcome",
    "Population",
    "Recovery",
    "Risks",
    "SitePolicy",
    "Study",
    "Traces",
    "advise",
    "read_study",
    "simulate",
]
