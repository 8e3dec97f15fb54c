"""Engines for tests: in bursts, from a thread of their own, and broken on purpose."""
