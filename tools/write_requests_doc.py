"""Write docs/requests.md from the models that parse the bodies; `--check` fails if it is stale."""

# ruff: noqa: E501 a row of a Markdown table has no line ends

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lmi.schemas import ChatBody, CompletionBody, LmiBody, LmiParameters
from lmi.schemas.openai import fields
from lmi.schemas.openai.fields import OpenAIFields
from lmi.schemas.sampling_fields import SamplingFields
from lmi.schemas.unknown import NOT_HONOURED

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "requests.md"

INTRO = """\
# Requests and replies

<!-- Written by tools/write_requests_doc.py from the models in lmi/schemas: `make docs` writes it anew. -->

`POST /invocations` (or `/predictions/{model}`, `/models/{model}/invoke`) takes a JSON object:

"""

FORMS = """
## Replies

Golden answers for every case are in `tests/golden/api`, one folder for each form.

| `option.compat` | not streamed | streamed | sampling without `do_sample` |
|---|---|---|---|
| `0.36` (default) | `{"generated_text": …}` | jsonlines: `{"token": {"id", "text", "log_prob"}}`, the last line \
also has `generated_text` | if a `temperature` is given |
| `0.36` with `option.tgi_compat=true` | the same in a list of one, with `details` | events; tokens have `logprob` \
and `special` | if a `temperature` is given |
| `0.25` | `{"generated_text": …}` | jsonlines: `{"outputs": ["text"]}` | never |
| `async` | `{"generated_text": …}` and a line end | jsonlines: `{"index", "token", "generated_text", "details"}`, \
then blank lines | always |

`output_formatter` (of the model or of a request) overrides the format: `json`, `jsonlines`, `sse` or `none` (the bare
text). Form `async` knows no formatters. A list of `inputs` is answered by a list, in order; an input that failed has an
object with `error` in its place. Several answers (`n`, `best_of`) are one object whose `details` hold the others as
`best_of_sequences`; they can't be streamed, except in form `async`, whose lines have an index.

| finish reason | `0.36` | `0.25` | `async` |
|---|---|---|---|
| `max_new_tokens` reached | `length` | `length` | `length` |
| end-of-sequence token | `eos_token` | `eos_token` | `stop` |
| stop sequence | `eos_token` | `stop_sequence` | `stop` |

## Errors

Before the first byte an error is a status with a JSON body; after it, the last line or event of the stream.

| status | when |
|---|---|
| 400 | several models and no name |
| 404 | no such path or model |
| 408 | the body did not arrive in time |
| 413 | the body is larger than `max_request_size` |
| 424 | the body is wrong (the text names the field), the prompt is too long, or the engine failed this request |
| 429 | the queue is full; `Retry-After` tells the seconds (`throttle_error_http_code` changes the status) |
| 500 | the engine was lost while it worked on the request |
| 503 | the model is loading, restarting or draining |
| 507 | out of memory |

"""

UNKNOWN = """\
## Unknown parameters

A parameter that nobody knows is ignored, named in the header `x-lmi-ignored-parameters` with the nearest known name, and
said once in the log. `option.strict_parameters=true` refuses it instead. These are known and have no effect:
"""


CHAT = """
# Chat and completions

OpenAI's bodies, with vLLM's extensions: on `POST /v1/chat/completions` and `POST /v1/completions`, and on
`/invocations`, where the field `messages` or `prompt` tells them from LMI's own. `GET /v1/models` lists the model and
its adapters.

## Chat

The prompt is what the model's chat template makes of the messages: `option.chat_template`, else the folder's
`chat_template.jinja`, else what `tokenizer_config.json` holds. Parts of type `text` are read; how a template sees them
(as one text, or as parts) is read from the template, or set by `option.chat_template_content_format`. A request can't
bring a template of its own. With `tools` the template shows them to the model, but calls are not read out of answers yet:
`tool_choice` must be `none`.

"""

OPENAI_REPLIES = """
## Replies of chat and completions

OpenAI's JSON. A `temperature` is 1 if none is given, and 0 is greedy. A chat without a limit goes on until the context
is full. `logprobs` hold every token; the `bytes` of the chosen tokens, joined, are the answer.

| where | streamed as | errors before the first byte |
|---|---|---|
| `/v1/...` | events, `data: [DONE]` at the end | `{"error": {"message", "type", "param", "code"}}`, 400 for a wrong body |
| `/invocations`, `option.compat` `0.36` or `0.25` | the same | `{"code": 424, "error": …}` |
| `/invocations`, `option.compat=async` | a line for each chunk | `{"code": 424, "error": …}` |

`option.output_formatter` of `sse_chat`, `jsonlines_chat` or `json_chat` sets the form on `/invocations`. An error after
the first byte is an object with `error` in the stream, then its end. `model` is the model's name or an adapter's; another
name is answered with 404 on `/v1/...` and accepted on `/invocations`.

"""


SAMPLING = """
## Sampling parameters

Of all dialects. An engine that lacks one of them refuses the request that asks for it: LMI-Dist has no `logit_bias`,
`allowed_token_ids`, `bad_words`, and nothing that the text must match. Of the fields that say what it must match, a
request has one.

"""

ADAPTERS = """
# Adapters

LoRA adapters of a model (with `option.enable_lora=true`): `/models/{model}/adapters`, or `/adapters` where one model
stands.

| call | does |
|---|---|
| `POST .../adapters?name=&src=[&preload=&pin=]` | registers; `src` is a folder inside the model's, as a path or a `file:` URL |
| `POST .../adapters/{name}/update[?preload=&pin=]` | loads or pins it anew |
| `GET .../adapters`, `GET .../adapters/{name}` | `{"name", "src", "preload", "pin"}` |
| `DELETE .../adapters/{name}` | removes it; live requests go on |

400 for a wrong parameter or a model without adapters, 404 for an unknown name, 409 for one that is taken, 507 when no
place is left. An engine that is restarted gets its adapters again. A request names one by the header
`X-Amzn-SageMaker-Adapter-Identifier`, the query's `adapter`, the body's `adapters`, or `model`; the first one counts.
"""


def page() -> str:
    """The page's text."""
    shared = frozenset(SamplingFields.model_fields)
    common = frozenset(OpenAIFields.model_fields)
    return "".join(
        [
            INTRO,
            table(LmiBody),
            "\n## parameters\n\nThese, and the sampling parameters below.\n\n",
            table(LmiParameters, shared),
            SAMPLING,
            table(SamplingFields),
            FORMS,
            f"{UNKNOWN}{names(NOT_HONOURED)}.\n",
            CHAT,
            table(ChatBody, common),
            "\n## Completions\n\n",
            table(CompletionBody, common),
            "\n## Chat and completions alike\n\nThese, and the sampling parameters above.\n\n",
            table(OpenAIFields, shared),
            OPENAI_REPLIES,
            f"Accepted, without any effect: {names(fields.WITHOUT_EFFECT)}.\n\n",
            f"Left out, and named in the header: {names(fields.NOT_HONOURED)}.\n\n",
            "Refused unless empty:\n\n| field | reason |\n|---|---|\n",
            *[f"| `{name}` | {why} |\n" for name, why in sorted(fields.NOT_AVAILABLE.items())],
            ADAPTERS,
        ]
    )


def names(found: Iterable[str]) -> str:
    """Names in order, as code."""
    return ", ".join(f"`{name}`" for name in sorted(found))


def table(model: type[BaseModel], without: frozenset[str] = frozenset()) -> str:
    """The fields of a body: name, type, bounds, meaning. without: those that stand elsewhere."""
    schema = model.model_json_schema()
    rows = ["| field | type | meaning |\n|---|---|---|\n"]
    for name, field in schema["properties"].items():
        if name in without:
            continue
        rows.append(f"| `{name}` | {kind(field)} | {field.get('description', '')} |\n")
    return "".join(rows)


def kind(field: dict[str, Any]) -> str:
    """A JSON schema's type in words."""
    if "anyOf" in field:
        kinds = [kind(each) for each in field["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in field:
        return "object"
    if field["type"] == "array":
        return f"list of {kind(field['items'])}"
    if "type" not in field:
        return "any JSON"
    words = {
        "boolean": "boolean",
        "integer": "whole number",
        "number": "number",
        "object": "object",
        "string": "text",
    }
    return words[field["type"]] + bounds(field)


def bounds(field: dict[str, Any]) -> str:
    """What a number may be."""
    signs = {
        "minimum": "from {}",
        "exclusiveMinimum": "above {}",
        "maximum": "to {}",
        "exclusiveMaximum": "below {}",
    }
    found = [text.format(field[key]) for key, text in signs.items() if key in field]
    return " " + " ".join(found) if found else ""


def main(arguments: list[str]) -> int:
    text = page()
    if arguments == ["--check"]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            print(f"{PAGE.relative_to(ROOT)} is stale: make docs", file=sys.stderr)
            return 1
        return 0
    if arguments:
        print("usage: write_requests_doc.py [--check]", file=sys.stderr)
        return 2
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
