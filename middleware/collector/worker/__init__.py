"""The worker: what is done with reports after they were acknowledged."""

from .alerts import Alerts, Send, apprise
from .worker import Worker

__all__ = ["Alerts", "Send", "Worker", "apprise"]
