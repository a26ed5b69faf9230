"""The lab: what pinning does and what goes wrong with it, on real sockets."""
