"""Decide, fetch, load, listen: from a resolved configuration to a serving process."""

from lmi.launch.serve import Address, serve

__all__ = ["Address", "serve"]
