"""Streams of generated text."""

from lmi.custom.stock.streaming import StreamingUtils
from lmi.custom.stock.text_streamer import HFStreamer

__all__ = ["HFStreamer", "StreamingUtils"]
