"""Refused: the reason is what the import raises."""

from lmi.custom.stock import refuse

refuse("djl_python.seq_scheduler")
