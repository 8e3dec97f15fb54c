"""Types, errors and the engine protocol: what every other package speaks. Standard library only."""

from lmi.core.engine import Engine, EngineInfo, EngineStats
from lmi.core.errors import (
    BadPayload,
    BuildError,
    ConfigError,
    DeadlineExceeded,
    EngineDead,
    EngineError,
    LmiError,
    ModelError,
    OutOfMemory,
    Overloaded,
    RequestError,
    TooLong,
    Unavailable,
    UnknownAdapter,
)
from lmi.core.types import Delta, Finish, GenerationRequest, Sampling, Token, TopToken, Usage

__all__ = [
    "BadPayload",
    "BuildError",
    "ConfigError",
    "DeadlineExceeded",
    "Delta",
    "Engine",
    "EngineDead",
    "EngineError",
    "EngineInfo",
    "EngineStats",
    "Finish",
    "GenerationRequest",
    "LmiError",
    "ModelError",
    "OutOfMemory",
    "Overloaded",
    "RequestError",
    "Sampling",
    "Token",
    "TooLong",
    "TopToken",
    "Unavailable",
    "UnknownAdapter",
    "Usage",
]
