"""Configurations of other gateways as a ``gateway.toml``: ``gateway import``.

None of this runs while the gateway serves.
"""
