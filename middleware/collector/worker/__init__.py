"""The worker: verdicts, alerts, digests and retention, after reports were acknowledged."""

from .alerts import Alerts, plain
from .channels import ACTIONS, Channel, Send, apprise
from .worker import Worker

__all__ = ["ACTIONS", "Alerts", "Channel", "Send", "Worker", "apprise", "plain"]
