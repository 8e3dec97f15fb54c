"""Rolling batches: the base class of users' own."""
