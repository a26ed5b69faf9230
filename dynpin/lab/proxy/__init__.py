"""A mitmproxy add-on that enforces pins for any program behind it, and the proxy that runs it.

It needs mitmproxy: the extra ``proxy``, in an environment of its own.
"""

from dynpin.lab.proxy.addon import PinningAddon

__all__ = ["PinningAddon"]
