"""Names that the stock handlers of DJL 0.34 import, as this release of vLLM has them.

The stock handlers were written for vLLM 0.10. Since then modules moved, some constructors took
other arguments, and two methods stopped being coroutines. This file gives back the old names and
calls; it changes nothing of what the stock handlers or vLLM do, and touches nothing on a request's
path but an attribute of the tokenizer. Python runs it at its start, as it lies in the engine
folder.
"""

from __future__ import annotations

import argparse
import sys
import types


def module(name: str, **names: object) -> None:
    """Put a module of these names where the import system finds it."""
    made = types.ModuleType(name)
    made.__path__ = []  # so that names below it can be looked for
    vars(made).update(names)
    sys.modules[name] = made


def install() -> None:
    import vllm.utils
    from transformers import PreTrainedTokenizerBase
    from vllm import AsyncLLMEngine
    from vllm.entrypoints.openai.chat_completion import protocol as chat
    from vllm.entrypoints.openai.completion import protocol as completion
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
    from vllm.entrypoints.openai.models.protocol import BaseModelPath
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels
    from vllm.entrypoints.serve.engine.protocol import ErrorResponse
    from vllm.logprobs import Logprob
    from vllm.renderers.online_renderer import OnlineRenderer
    from vllm.tool_parsers import ToolParser, ToolParserManager
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.utils.counter import AtomicCounter
    from vllm.utils.system_utils import kill_process_tree

    class StoreBoolean(argparse.Action):
        """No argument of this vLLM uses it; the stock code asks whether one does."""

    class Models(OpenAIServingModels):
        def __init__(self, engine, model_config, paths):
            super().__init__(engine, paths)

    class Completion(OpenAIServingCompletion):
        def __init__(self, engine, model_config, models, *, request_logger):
            renderer = OnlineRenderer(
                model_config=engine.model_config,
                renderer=engine.renderer,
                request_logger=request_logger,
                chat_template=None,
                chat_template_content_format="auto",
            )
            super().__init__(
                engine, models, online_renderer=renderer, request_logger=request_logger
            )

    class Chat:
        """Made by the stock handler, and not used by a request without messages."""

        def __init__(self, *arguments, **named):
            pass

    tokenizer = AsyncLLMEngine.get_tokenizer

    async def get_tokenizer(self):
        return tokenizer(self)

    async def get_model_config(self):
        return self.model_config

    AsyncLLMEngine.get_tokenizer = get_tokenizer
    AsyncLLMEngine.get_model_config = get_model_config
    PreTrainedTokenizerBase.tokenizer = property(lambda self: self)

    protocols = {**vars(completion), **vars(chat), "ErrorResponse": ErrorResponse}
    module("vllm.entrypoints.openai.protocol", **protocols)
    module("vllm.entrypoints.openai.serving_chat", OpenAIServingChat=Chat)
    module("vllm.entrypoints.openai.serving_completion", OpenAIServingCompletion=Completion)
    module(
        "vllm.entrypoints.openai.serving_models",
        OpenAIServingModels=Models,
        BaseModelPath=BaseModelPath,
    )
    module("vllm.entrypoints.openai.serving_engine", RequestPrompt=object, TextTokensPrompt=object)
    module(
        "vllm.entrypoints.openai.tool_parsers",
        ToolParser=ToolParser,
        ToolParserManager=ToolParserManager,
    )
    module("vllm.transformers_utils.tokenizer", AnyTokenizer=object)
    module("vllm.transformers_utils.tokenizers")
    module("vllm.transformers_utils.tokenizers.mistral", maybe_serialize_tool_calls=None)
    module("peft", PeftConfig=object, PeftModel=object, PeftModelForCausalLM=object)
    import vllm.sequence

    vllm.sequence.Logprob = Logprob
    vllm.utils.AtomicCounter = AtomicCounter
    vllm.utils.kill_process_tree = kill_process_tree
    vllm.utils.FlexibleArgumentParser = FlexibleArgumentParser
    vllm.utils.StoreBoolean = StoreBoolean


# Only in the process that Java starts, not in those that vLLM spawns from it.
if any(word.endswith("djl_python_engine.py") for word in sys.orig_argv):
    install()
