"""The queue of violation reports, and how a report is posted (RFC 7469 §3)."""

from .queue import ReportMode, ReportQueue
from .table import Delivery, QueuedReport

__all__ = ["Delivery", "QueuedReport", "ReportMode", "ReportQueue"]
