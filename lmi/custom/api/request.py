"""A request of a rolling batch, as `RollingBatch` classes of users keep it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lmi.custom.api.formatting import get_output_formatter
from lmi.custom.api.request_io import RequestInput, TextGenerationOutput, TextInput, Token


class Request:
    """A live request and the text that waits to be sent for it.

    request_input: with its parameters and its output formatter (a name or a function).
    error_message, error_code: of a request that failed.
    """

    def __init__(self, request_input: RequestInput) -> None:
        self.request_input = request_input
        self.id = request_input.request_id
        self.request_output = TextGenerationOutput(self.id, request_input)
        self.next_token_str: str = ""
        self.last_token = False
        self.error_message: str | None = None
        self.error_code: int | None = None
        stream = bool(request_input.parameters.get("stream"))
        self._format: Callable[[TextGenerationOutput], str]
        self._format, self._content_type = get_output_formatter(
            request_input.output_formatter, stream, request_input.tgi_compat
        )

    def __repr__(self) -> str:
        return f"Request(id={self.id}, finished={self.last_token})"

    @property
    def input_text(self) -> Any:
        """The prompt."""
        return self.request_input.input_text if isinstance(self.request_input, TextInput) else None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the request's body."""
        return self.request_input.parameters

    def set_next_token(
        self,
        next_token: Token | str,
        last_token: bool = False,
        finish_reason: str | None = None,
        prompt_tokens_details: list[Token] | None = None,
    ) -> None:
        """Append a token; its part of the answer waits in `get_next_token`."""
        token = Token(-1, next_token) if isinstance(next_token, str) else next_token
        token.request_id = self.id
        output = self.request_output
        if prompt_tokens_details:
            output.prompt_tokens_details = prompt_tokens_details
        output.set_next_token(
            token, output.best_sequence_index, last_token, finish_reason=finish_reason
        )
        output.finished = self.last_token = last_token
        self.next_token_str += self._format(output)

    def get_next_token(self) -> str:
        """The part of the answer that waits to be sent."""
        return self.next_token_str

    def reset_next_token(self) -> None:
        """Nothing waits any more."""
        self.next_token_str = ""

    def is_last_token(self) -> bool:
        """Whether the last token was set."""
        return self.last_token

    def get_content_type(self) -> str | None:
        """The answer's content type; None where a function of the user formats it."""
        return self._content_type

    def get_client_request_id(self) -> str | None:
        """The id that the client gave."""
        return self.request_input.client_request_id

    def set_error_message(self, message: str) -> None:
        """Say why the request failed."""
        self.error_message = message

    def get_error_message(self) -> str | None:
        """Why the request failed, or None."""
        return self.error_message

    def set_error_code(self, code: int) -> None:
        """Say with which status the request failed."""
        self.error_code = code

    def get_error_code(self) -> int | None:
        """The status with which the request failed, or None."""
        return self.error_code
