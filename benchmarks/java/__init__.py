"""The engine folder behind DJL's real Java classes: load runs."""
