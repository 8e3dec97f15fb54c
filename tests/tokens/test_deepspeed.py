"""Models that DeepSpeed divides say in float32 what transformers.generate says; quantised ones say
on two ranks what they say on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from lmi.dist.cores import available_cores
from tests.support.deepspeed_bodies import answer_all
from tests.support.models import make_model
from tests.support.quantised_models import FORMATS, write_pair
from tests.support.ranks import ranks
from tests.tokens.conftest import PROMPTS, GetReference, greedy_answers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(available_cores() < 2, reason="two ranks need two cores"),
]

NEW_TOKENS: Final = 16
FAMILIES: Final = ("llama", "gpt_neox", "opt", "qwen3", "mixtral")
# A fused projection with act-order and without; rows that are quantised too; a bias.
QUANTISED: Final = (
    ("llama", "GPTQ 4 act-order"),
    ("gpt_neox", "AWQ"),
    ("gpt_neox", "W8A8"),
    ("opt", "GPTQ 3"),
)


def agreement(said: list[list[int]], wanted: list[list[int]]) -> float:
    """The share of equal ids, place by place."""
    pairs = [pair for one, two in zip(said, wanted, strict=True) for pair in zip(one, two)]  # noqa: B905
    return sum(one == two for one, two in pairs) / len(pairs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deepspeed")


def test_two_ranks_say_what_transformers_says(folder: Path, reference: GetReference) -> None:
    plain = [reference(family, NEW_TOKENS) for family in FAMILIES]
    models: list[tuple[str, dict[str, Any]]] = [(str(one.folder), {}) for one in plain]
    wanted = [one.answers for one in plain]
    for number, (family, form) in enumerate(QUANTISED):
        (folder / str(number)).mkdir()
        low, means = write_pair(folder / str(number), family, FORMATS[form])
        models.append((str(low), {}))
        wanted.append(greedy_answers(means, NEW_TOKENS))
    models += [(str(plain[1].folder), {"quantize": "int8"})]
    biased, unknown = (make_model(folder / name, name) for name in ("bloom", "gpt2"))
    models += [(str(biased), {}), (str(unknown), {})]
    with ranks(2, folder, answer_all, models, PROMPTS, NEW_TOKENS, timeout=120.0) as job:
        (sums, first), (_, second) = job.results()
    assert sums.startswith("LMI-Dist's shared memory")
    assert first == second
    *found, int8, bloom, gpt2 = first
    forms = [*((family, "plain") for family in FAMILIES), *QUANTISED]
    for form, answer, want in zip(forms, found, wanted, strict=True):
        assert not isinstance(answer, str), (form, answer)
        said, details = answer
        if form[1] == "W8A8":  # rows are rounded too: near ties may turn
            assert agreement(said, want) > 0.5, form
        else:
            assert said == want, (form, details)
        assert dict(details)["DeepSpeed"] == "AutoTP among 2 ranks"
    assert agreement(int8[0], wanted[1]) > 0.5
    assert "INT8" in dict(int8[1])["weights"]
    assert "bias by head" in bloom
    assert "gpt2" in gpt2
