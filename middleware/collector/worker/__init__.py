"""The worker: what is done with reports after they were acknowledged."""

from .alerts import Alerts, Channel, Send, apprise, plain
from .worker import Worker

__all__ = ["Alerts", "Channel", "Send", "Worker", "apprise", "plain"]
