"""Configuration, decided once: read, resolve (every value with its origin), check, explain."""

from lmi.config.problems import ConfigErrors
from lmi.config.resolution import Resolution, Setting
from lmi.config.resolve import resolve
from lmi.config.spec import ModelSpec, ServerSettings

__all__ = ["ConfigErrors", "ModelSpec", "Resolution", "ServerSettings", "Setting", "resolve"]
