"""The effect of a policy on its users: a population of clients, a calendar of events, policies side by side.

A :class:`Study` is read from TOML, :func:`simulate` runs it, and :func:`advise` searches for the best policy with the
operator's own numbers. :func:`dynpin.validation.validate` and :func:`dynpin.noting.note` decide which chains a client
accepts and what it notes. This package only does the arithmetic of expiry, on arrays.
"""

from dynpin.lab.simulation.advice import Advice, Risks, advise
from dynpin.lab.simulation.population import PRESETS, Group, Population
from dynpin.lab.simulation.recovery import Recovery
from dynpin.lab.simulation.run import Outcome, simulate
from dynpin.lab.simulation.site_policy import SitePolicy
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
