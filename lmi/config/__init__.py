"""Configuration, decided once: read, resolve (every value with its origin), check, explain."""

from lmi.config.front import Front
from lmi.config.problems import ConfigErrors
from lmi.config.resolution import Resolution, Setting
from lmi.config.resolve import resolve
from lmi.config.spec import CodeSettings, ModelSpec, ServerSettings, Workers

__all__ = [
    "CodeSettings",
    "ConfigErrors",
    "Front",
    "ModelSpec",
    "Resolution",
    "ServerSettings",
    "Setting",
    "Workers",
    "resolve",
]
