"""The worker: verdicts, alerts, digests and retention, after reports were acknowledged."""

from .alerts import Alerts, plain
from .channels import ACTIONS, Channel, Send, apprise
from .clock_jump import ClockJump, clock_jump, prune
from .worker import Worker

__all__ = ["ACTIONS", "Alerts", "Channel", "ClockJump", "Send", "Worker", "apprise", "clock_jump", "plain", "prune"]
