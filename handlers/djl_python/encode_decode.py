"""Bodies by their content type."""

from lmi.custom.api.encode_decode import (
    decode,
    decode_csv,
    encode,
    encode_csv,
)

__all__ = [
    "decode",
    "decode_csv",
    "encode",
    "encode_csv",
]
