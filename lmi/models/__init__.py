"""The one way to models: local folders, the Hugging Face hub and S3 behind one `Store`."""

from lmi.models.header import ModelHeader
from lmi.models.source import LocalModel, Progress, StoredFile
from lmi.models.store import Store, default_cache

__all__ = ["LocalModel", "ModelHeader", "Progress", "Store", "StoredFile", "default_cache"]
