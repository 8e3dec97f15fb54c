"""Text that a model reads so that the sizes of its activations become known.

source.py   texts from a user's file, or our own small set (own.txt, written for this purpose)
windows.py  texts as runs of token ids, all of one length
"""

from lmi.quantize.calibration.source import texts
from lmi.quantize.calibration.windows import windows

__all__ = ["texts", "windows"]
