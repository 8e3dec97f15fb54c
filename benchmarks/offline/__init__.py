"""Engines measured offline: each in a process of its own, all by the same closed loop of ids."""
