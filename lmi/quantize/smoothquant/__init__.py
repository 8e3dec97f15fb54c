"""SmoothQuant just in time: 8-bit weights and activations of a plain checkpoint (W8A8).

families.py   which linear layers follow which norm, by model_type
smoothing.py  the factors, and what they do to a layer's tensors
int8.py       weights of 8 bits and the configuration that describes them
recipe.py     one layer at a time from a checkpoint to another
ensured.py    the same from the cache, or made now
"""

from lmi.quantize.smoothquant.ensured import ALPHA, ensure
from lmi.quantize.smoothquant.families import FAMILIES

__all__ = ["ALPHA", "FAMILIES", "ensure"]
