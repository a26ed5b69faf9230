"""What the nodes of one site share: the position on the ramp, what each of them sends, the history of a rotation.

The document and its rules are values (:class:`SiteDocument`). It is kept by the collector, over its API, with a local
copy by which a node starts and serves while the collector is away (:class:`SharedState`).
"""

from .announcing import Announcer, agree_now, announcer
from .document import (
    HEARD_EVERY,
    LONGEST_STATE,
    HistoryState,
    NodeState,
    Objections,
    RampState,
    Sent,
    SiteDocument,
    Speaker,
    is_gentler,
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
    "Sent",
    "SharedRamp",
    "SharedState",
    "SiteDocument",
    "SiteNode",
    "Speaker",
    "StateSource",
    "agree_now",
    "announcer",
    "is_gentler",
]
