"""The worker: what is done with reports after they were acknowledged."""

from .alerts import Alerts, plain
from .channels import ACTIONS, Channel, Send, apprise
from .worker import Worker

__all__ = ["ACTIONS", "Alerts", "Channel", "Send", "Worker", "apprise", "plain"]
