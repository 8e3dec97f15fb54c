"""What was made of a model, kept for the next start: folders that appear whole or not at all.

artifacts.py    Cache: a folder by what it is made of, from the disk or made now
passport.py     passport.json: what an artifact was made of, and whether its files are whole
locks.py        one process makes; those that use an artifact keep it from being removed
room.py         a bound on the disk: the least recently used go first, never one in use
fingerprint.py  what identifies a model's content
"""

from lmi.quantize.cache.artifacts import Cache
from lmi.quantize.cache.fingerprint import fingerprint

__all__ = ["Cache", "fingerprint"]
