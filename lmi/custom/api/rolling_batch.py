"""The base class of users' own rolling batches: live requests, and what each has to send.

Two generations of subclasses exist. Since LMI 0.26 `__init__(configs)` and `inference(requests)`
take `Request` objects. Those for 0.25 call `super().__init__(device, **kwargs)` and implement
`inference(input_data, parameters)` over `get_new_requests(input_data, parameters, batch_size)`.
Both work here; a base class in the middle can't know which one it has but by what it is given.
"""

from __future__ import annotations

import functools
import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Final

from lmi.custom.api.request import Request
from lmi.custom.api.request_io import TextInput, Token

log = logging.getLogger(__name__)

FINISH_REASON_MAPPER: Final = ["length", "eos_token", "stop_sequence"]


def filter_unused_generation_params(
    parameters: dict[str, Any],
    allowed_params: set[str],
    backend: str,
    remove_unused_params: bool = False,
) -> dict[str, Any]:
    """Log the parameters that a backend does not know, and remove them if asked to."""
    unused = sorted(set(parameters) - set(allowed_params))
    if unused:
        log.warning("%s has no parameters %s", backend, ", ".join(unused))
    if remove_unused_params:
        for name in unused:
            del parameters[name]
    return parameters


def stop_on_any_exception(func: Callable[..., Any]) -> Callable[..., Any]:
    """Around `inference`: an exception ends all live requests with an error; the batch lives."""

    @functools.wraps(func)
    def wrapped(self: RollingBatch, *args: Any, **kwargs: Any) -> Any:
        try:
            return func(self, *args, **kwargs)
        except Exception as error:  # whatever a user's engine may raise
            log.exception("the rolling batch failed")
            for request in self.active_requests:
                token = Token(-1, "", log_prob=-1, special_token=True, error_msg=str(error))
                request.set_error_code(424)
                request.set_error_message("exception occurred during rolling batch inference")
                request.set_next_token(token, last_token=True, finish_reason="error")
            results = self.postprocess_results()
            self.reset()
            return results

    return wrapped


class RollingBatch(ABC):
    """Keeps the live requests of a batch in order. A subclass computes a step in `inference`."""

    def __init__(self, configs: Any = None, *_: Any, **kwargs: Any) -> None:
        self.configs = configs
        self.device = configs  # what scripts for 0.25 give in this place
        self.active_requests: list[Request] = []
        self.pending_requests: list[Request] = []
        self.req_id_counter: Iterator[int] = itertools.count()
        self.output_formatter = kwargs.get("output_formatter")

    def reset(self) -> None:
        """Forget all requests."""
        self.active_requests = []
        self.pending_requests = []
        self.req_id_counter = itertools.count()

    def get_tokenizer(self) -> Any:
        """The model's tokenizer. Raises RuntimeError where a subclass has none."""
        raise RuntimeError(f"{type(self).__name__} has no get_tokenizer")

    @abstractmethod
    def inference(self, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """Compute a step and return `postprocess_results()`.

        Gets the new requests; in scripts for 0.25 the texts and the parameters of all of them.
        """

    def preprocess_requests(self, requests: list[Request]) -> Any:
        """Turn requests into what the subclass's engine takes. By default nothing is done."""
        return requests

    def add_new_requests(self, requests: list[Request]) -> list[Request]:
        """Take requests in; returns those that are new."""
        self.active_requests.extend(requests)
        return requests

    def get_new_requests(
        self,
        requests: list[Any],
        parameters: list[dict[str, Any]] | None = None,
        batch_size: int | None = None,
    ) -> list[Request]:
        """Take in those beyond the live ones of a list of all requests; returns the new ones.

        parameters: of each, where `requests` are texts (scripts for 0.25); batch_size: how many
        there are.
        """
        known = len(self.active_requests)
        for place in range(known, len(requests) if batch_size is None else batch_size):
            each = requests[place]
            if not isinstance(each, Request):
                given = dict(parameters[place]) if parameters else {}
                formatter = given.pop("output_formatter", self.output_formatter)
                each = Request(
                    TextInput(
                        request_id=next(self.req_id_counter),
                        input_text=each,
                        parameters=given,
                        output_formatter=formatter,
                    )
                )
            self.active_requests.append(each)
        return self.active_requests[known:]

    def postprocess_results(self) -> list[dict[str, Any]]:
        """What each live request has to send, in order; finished ones are dropped."""
        results: list[dict[str, Any]] = []
        for request in self.active_requests:
            result: dict[str, Any] = {
                "data": request.get_next_token(),
                "last": request.is_last_token(),
                "content_type": request.get_content_type(),
            }
            if request.get_error_code() is not None:
                result |= {"code": request.get_error_code(), "error": request.get_error_message()}
            request.reset_next_token()
            results.append(result)
        self.active_requests = [each for each in self.active_requests if not each.is_last_token()]
        return results

    def add_lora(self, *args: Any, **kwargs: Any) -> Any:
        """Load an adapter. Raises NotImplementedError where a subclass has no adapters."""
        raise NotImplementedError(f"{type(self).__name__} has no adapters")

    def remove_lora(self, *args: Any, **kwargs: Any) -> Any:
        """Unload an adapter. Raises NotImplementedError where a subclass has no adapters."""
        raise NotImplementedError(f"{type(self).__name__} has no adapters")

    def pin_lora(self, *args: Any, **kwargs: Any) -> Any:
        """Keep an adapter loaded. Raises NotImplementedError where there are no adapters."""
        raise NotImplementedError(f"{type(self).__name__} has no adapters")
