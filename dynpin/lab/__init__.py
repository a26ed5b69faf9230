"""The lab: how pinning works and how it fails, on real sockets."""
