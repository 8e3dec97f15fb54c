"""Decide, fetch, load, listen: from a resolved configuration to a serving process."""
