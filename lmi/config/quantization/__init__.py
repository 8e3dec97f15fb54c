"""Quantisation as the options see it: names, what checkpoints say, and the table that judges both.

methods.py     the names of every LMI release, and what each means here
checkpoint.py  how a checkpoint says that it is quantised
hardware.py    what the model would run on
table.py       engine x method x hardware: how it works, or why not
verdict.py     the judgement
"""

from lmi.config.quantization.checkpoint import Quantised, quantised
from lmi.config.quantization.hardware import CPU, Hardware
from lmi.config.quantization.table import ENGINES
from lmi.config.quantization.verdict import Asked, Verdict, judge

__all__ = ["CPU", "ENGINES", "Asked", "Hardware", "Quantised", "Verdict", "judge", "quantised"]
