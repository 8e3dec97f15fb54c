"""A request is `{"question": ..., "words": ...}`, an answer a line for each token."""

import json

from djl_python import Input
from djl_python.input_parser import input_formatter
from djl_python.output_formatter import TextGenerationOutput, output_formatter
from djl_python.request_io import TextInput


@input_formatter
def read(input_item: Input, **kwargs) -> TextInput:
    body = input_item.get_as_json()
    return TextInput(
        request_id=0,
        input_text=body["question"],
        parameters={"max_new_tokens": body.get("words", 16), "stream": True},
    )


@output_formatter
def write(request_output: TextGenerationOutput) -> str:
    sequence = request_output.sequences[request_output.best_sequence_index]
    token, index, _, last = sequence.get_next_token()
    line = {"piece": token.text, "number": index}
    if last:
        line["ended"] = sequence.finish_reason
    return json.dumps(line) + "\n"
