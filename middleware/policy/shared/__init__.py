"""The state that the nodes of a site share: the position on the ramp, the header of each node, a rotation's history.

:class:`SiteDocument` has the document and its rules, as values. The collector keeps it, and :class:`SharedState` reads
and changes it over the API. A node has a local copy, so that it can start and serve without the collector.
"""

from .announcing import Announcer, agree_now, announcer
from .document import (
    HEARD_EVERY,
    LONGEST_STATE,
    HistoryState,
    NodeState,
    Objections,
    RampState,
    Sender,
    Sent,
    SiteDocument,
    is_gentler,
    is_noted,
)
from .kept import SharedState, StateSource
from .node import Permitted, SiteNode
from .ramp import SharedRamp

__all__ = [
    "HEARD_EVERY",
    "LONGEST_STATE",
    "Announcer",
    "HistoryState",
    "NodeState",
    "Objections",
    "Permitted",
    "RampState",
    "Sender",
    "Sent",
    "SharedRamp",
    "SharedState",
    "SiteDocument",
    "SiteNode",
    "StateSource",
    "agree_now",
    "announcer",
    "is_gentler",
    "is_noted",
]
