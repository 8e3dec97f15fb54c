"""What processes of one installation share to speak with each other: frames, an outbox, a tether.

Standard library and msgspec only, so that a worker starts fast.
"""
