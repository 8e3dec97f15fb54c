"""Measurements. Each prints a table, writes JSON, and compares with a peer in the same run."""
