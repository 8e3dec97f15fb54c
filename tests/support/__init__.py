"""Shipped fakes, makers and probes that several test suites use."""
