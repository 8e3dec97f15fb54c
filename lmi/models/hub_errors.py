"""What huggingface_hub raises becomes a ModelError that says what to do. By type, never by text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmi.core import ModelError
from lmi.models.placing import disk_errors


@contextmanager
def hub_errors(model: str) -> Iterator[None]:
    """Around every call of huggingface_hub. model: how the message names what was asked for."""
    import httpx2
    from huggingface_hub import constants, errors

    # The order matters: several of these are subclasses of one another, and of OSError.
    with disk_errors("write", Path(constants.HF_HUB_CACHE)):
        try:
            yield
        except errors.GatedRepoError as error:
            raise ModelError(
                f"model {model} is gated: accept its terms on its page on the hub and give a token "
                f"of that account in HF_TOKEN ({_token()})"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise ModelError(
                f"model {model} is not on the hub, or private; and no folder here has that name. "
                f"For a private one give a token in HF_TOKEN ({_token()})"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise ModelError(
                f"model {model}: the hub has no such revision; give a branch, a tag or a commit"
            ) from error
        except errors.RemoteEntryNotFoundError as error:
            raise ModelError(
                f"model {model}: the hub lists a file that it does not have ({error.response.url})"
            ) from error
        except errors.HfHubHTTPError as error:
            raise ModelError(
                f"model {model}: the hub answered {error.response.status_code} "
                f"({error.server_message or error.response.reason_phrase}); try again later"
            ) from error
        except (
            errors.RevisionResolutionError,
            errors.LocalEntryNotFoundError,
            errors.OfflineModeIsEnabled,
            httpx2.TransportError,
        ) as error:
            reason = (
                "HF_HUB_OFFLINE forbids to ask the hub"
                if constants.is_offline_mode()
                else f"the hub is out of reach ({_reason(error.__cause__ or error)})"
            )
            raise ModelError(
                f"model {model} is not complete in the cache, and {reason}: download it where the "
                "hub can be reached, or give a folder that holds it"
            ) from error


def _reason(error: BaseException) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return f"it answers {error.response.status_code}"
    return type(error).__name__


def _token() -> str:
    return "one is set" if os.environ.get("HF_TOKEN") else "none is set"
