"""The exception tree. A library's own exceptions become these in that library's adapter, by type,
never by text.

    LmiError
    ├── ConfigError       an option: exit 2 before anything starts, one line, no traceback
    ├── ModelError        missing, gated, corrupt: exit 2
    ├── BuildError        a compilation failed: exit 3
    ├── RequestError      one request; its client is told what was wrong
    │   ├── BadPayload    the body can't be read as a request
    │   ├── TooLong       prompt and answer don't fit the model or its cache
    │   ├── UnknownAdapter
    │   ├── Overloaded    the queue is full
    │   ├── Unavailable   loading, restarting or draining: try again
    │   └── DeadlineExceeded
    ├── EngineError       a request that the engine failed; the engine lives
    │   └── OutOfMemory
    └── EngineDead        the engine is gone: each live request fails with one error
"""

from __future__ import annotations


class LmiError(Exception):
    """The root. `str(error)` is one line made for a person."""


class ConfigError(LmiError):
    """An option that can't be honoured.

    option: the key as its user wrote it. value: its text, None where there is none. source: where
    it came from, such as `serving.properties:3` or `OPTION_DTYPE`. want: what would be right, as
    the end of a sentence.
    """

    def __init__(self, option: str, value: str | None, source: str, want: str) -> None:
        self.option = option
        self.value = value
        self.source = source
        self.want = want
        shown = option if value is None else f"{option}={value!r}"
        super().__init__(f"{shown} (from {source}): {want}")


class ModelError(LmiError):
    """The model is missing, gated, corrupt, or not one that the engine can run."""


class BuildError(LmiError):
    """Compiling or quantising failed; the message names the log file and the cache key."""


class RequestError(LmiError):
    """One request is refused or fails; nothing else is touched.

    code: the HTTP status of the default dialect. field: the dotted path in the body that is at
    fault, or None. retry_after: seconds after which trying again makes sense, or None.
    """

    code = 424

    def __init__(
        self, message: str, *, field: str | None = None, retry_after: float | None = None
    ) -> None:
        self.field = field
        self.retry_after = retry_after
        super().__init__(message)


class BadPayload(RequestError):
    """The body is not JSON, or a field has the wrong type or an impossible value."""


class TooLong(RequestError):
    """The prompt, or prompt and answer together, exceed what the model or its KV cache holds."""


class UnknownAdapter(RequestError):
    """The request names an adapter that is not registered."""

    code = 404


class Overloaded(RequestError):
    """The queue is full. Always carries `retry_after`."""

    code = 429


class Unavailable(RequestError):
    """The model is loading, restarting or draining."""

    code = 503


class DeadlineExceeded(RequestError):
    """The request's time is over; its generation has been stopped."""

    code = 408


class EngineError(LmiError):
    """The engine failed this request and lives on."""

    code = 424


class OutOfMemory(EngineError):
    """The accelerator or the host ran out of memory."""

    code = 507


class EngineDead(LmiError):
    """The engine is gone. Each of its live requests fails with one error."""

    code = 500
