"""A model of quantised layers says what the widened one says, to the token, in every runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmi.core import ModelError
from lmi.dist import DistConfig
from lmi.dist.collectives.base import Collective
from lmi.dist.core import EngineCore
from lmi.dist.cores import available_cores
from lmi.dist.messages import CoreEvent, CoreRequest
from tests.support.models import make_model, ragged_prompts
from tests.support.quantised_models import FORMATS, write_pair
from tests.support.ranks import ranks

pytestmark = pytest.mark.slow

PROMPTS = ragged_prompts(4, 1, longest=40)
Answers = dict[int, list[CoreEvent]]


def answers(
    folder: Path, collective: Collective | None = None, *, new_tokens: int = 12, **options: Any
) -> tuple[Answers, dict[str, str]]:
    config = DistConfig(folder, dtype="float32", device="cpu", max_batch=4, threads=1, **options)
    core = EngineCore(config, collective=collective)
    for index, prompt in enumerate(PROMPTS):
        core.add(CoreRequest(index, prompt, max_new_tokens=new_tokens, logprobs=0))
    found: Answers = {index: [] for index in range(len(PROMPTS))}
    while core.has_work:
        for event in core.step():
            assert event.token is not None
            found[event.request_id].append(event)
    details = dict(core.info.details)
    core.close()
    return found, details


def tokens(found: Answers) -> dict[int, list[int | None]]:
    return {index: [event.token for event in events] for index, events in found.items()}


def check_equal(got: Answers, want: Answers) -> None:
    assert tokens(got) == tokens(want)
    assert len({token for answer in tokens(want).values() for token in answer}) > 10, "a dull model"
    for index, events in want.items():
        assert [event.logprob for event in got[index]] == pytest.approx(
            [event.logprob for event in events], abs=1e-3
        )


@pytest.mark.parametrize("kernels", ["plain", "auto"])
@pytest.mark.parametrize(
    ("form", "label"),
    [
        ("GPTQ 3", "GPTQ, 3 bits"),
        ("GPTQ 4 act-order", "GPTQ, 4 bits"),
        ("GPTQ 8", "GPTQ, 8 bits"),
        ("AWQ", "AWQ, 4 bits"),
        ("packed W4A16", "compressed-tensors, W4A16"),
        ("int8 W8A16", "compressed-tensors, W8A16"),
    ],
)
def test_the_tokens_are_those_of_what_the_numbers_mean(
    tmp_path: Path, form: str, label: str, kernels: str
) -> None:
    low, plain = write_pair(tmp_path, "llama", FORMATS[form], head=form == "GPTQ 4 act-order")
    got, details = answers(low, kernels=kernels)
    check_equal(got, answers(plain, kernels=kernels)[0])
    assert details["weights"].endswith(label)


@pytest.mark.parametrize(
    ("family", "form", "head"),
    [
        ("gpt2", "GPTQ 4 act-order", False),
        ("gpt_neox", "GPTQ 8", True),
        ("opt", "AWQ", False),
        ("gemma", "packed W4A16", False),
        ("phi", "GPTQ 3", False),
        ("falcon_40b", "int8 W8A16", False),
        ("bloom", "AWQ", True),
    ],
)
def test_transformers_models_of_any_family_keep_their_bits(
    tmp_path: Path, family: str, form: str, head: bool
) -> None:
    low, plain = write_pair(tmp_path, family, FORMATS[form], head=head)
    got, details = answers(low)
    check_equal(got, answers(plain)[0])
    assert details["runtime"].startswith("transformers")
    assert "layers, " in details["weights"]


def test_quantised_activations_change_little(tmp_path: Path) -> None:
    low, plain = write_pair(tmp_path, "llama", FORMATS["W8A8"])
    want, _ = answers(plain, kernels="plain")
    for runtime in ("native", "transformers"):
        got, details = answers(low, runtime=runtime)
        assert "W8A8" in details["weights"]
        check_close(got, want)


def check_close(got: Answers, want: Answers) -> None:
    """Rounding moves probabilities, but no first choice of these models."""
    changed = [
        abs((got[index][0].logprob or 0.0) - (want[index][0].logprob or 0.0)) for index in got
    ]
    assert 0 < max(changed) < 0.5
    assert [events[0].token for events in got.values()] == [e[0].token for e in want.values()]


DIVIDED_TOKENS = 6
DIVIDED = (
    ("llama", "GPTQ 4 act-order", {}),
    ("llama", "AWQ", {"kernels": "plain"}),
    ("llama", "W8A8", {}),
    ("mixtral", "packed W4A16", {}),
    ("gemma", "GPTQ 4 act-order", {}),  # by transformers, which divides one model per process
)


def answer_divided(
    collective: Collective, say: Callable[[Any], None], folders: list[Path]
) -> list[Answers]:
    """Each rank is asked the same, and chooses the same."""
    return [
        answers(folder, collective, new_tokens=DIVIDED_TOKENS, **options)[0]
        for folder, (_, _, options) in zip(folders, DIVIDED, strict=True)
    ]


@pytest.mark.skipif(available_cores() < 2, reason="two ranks need two cores")
def test_two_ranks_say_what_one_rank_says(tmp_path: Path) -> None:
    pairs = [
        write_pair(tmp_path / str(index), family, FORMATS[form])
        for index, (family, form, _) in enumerate(DIVIDED)
    ]
    with ranks(2, tmp_path, answer_divided, [low for low, _ in pairs]) as job:
        results = job.results()
    for case, (low, plain), got, other in zip(DIVIDED, pairs, *results, strict=True):
        assert tokens(got) == tokens(other)
        if case[1] == "W8A8":  # each rank rounds its own part of a row
            check_close(got, answers(plain)[0])
        else:
            check_equal(got, answers(low, new_tokens=DIVIDED_TOKENS, **case[2])[0])


def test_a_method_that_is_not_known_is_named_before_weights(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "llama", "llama")
    values = json.loads((folder / "config.json").read_text())
    values["quantization_config"] = {"quant_method": "hqq", "nbits": 4}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"config\.json: .*quant_method 'hqq' is not known"):
        EngineCore(DistConfig(folder))


def test_no_more_than_the_quantised_model_is_in_memory_while_it_is_loaded(tmp_path: Path) -> None:
    low, _ = write_pair(tmp_path, "gpt_neox", FORMATS["GPTQ 8"])
    made: list[int] = []
    plain = torch.nn.Linear.__init__

    def count(self: Any, inputs: int, outputs: int, *args: Any, **more: Any) -> None:
        plain(self, inputs, outputs, *args, **more)
        made.append(0 if self.weight.is_meta else self.weight.nbytes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Linear, "__init__", count)
        answers(low)
    assert made
    assert not any(made)
