"""A model by layers computes what the whole model does, and folds change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as tf

from lmi.core import ModelError
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.quantize.fold import makers_of, multiplied
from lmi.quantize.inputs import groups_of, moments_of
from lmi.quantize.skeleton import Skeleton, open_skeleton
from tests.support.models import make_model

pytestmark = pytest.mark.slow
IDS = torch.randint(3, 500, (30,), generator=torch.Generator().manual_seed(2)).tolist()


def _open(folder: Path, checkpoint: Checkpoint) -> Skeleton:
    return open_skeleton(folder, checkpoint, device="cpu", trust_remote_code=False)


@pytest.mark.parametrize(
    "family",
    ["llama", "mistral", "qwen2", "qwen3", "gpt_neox", "opt", "gemma", "gemma2", "gemma3", "phi"],
)
def test_layers_one_by_one_are_the_model(family: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path, family)
    with Checkpoint(folder) as checkpoint:
        skeleton = _open(folder, checkpoint)
        hidden = skeleton.embed(IDS)
        for index in range(skeleton.layers):
            with skeleton.layer(index) as layer:
                hidden = layer(hidden)
            assert all(p.is_meta for p in layer.module.parameters())
        got = skeleton.logits(hidden)
    whole = tf.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        want = whole.eval()(torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "reason"),
    [("gpt2", "GPT2Block has no torch.nn.Linear"), ("mixtral", r"gate_up_proj holds several")],
)
def test_other_layers_are_refused_by_name(family: str, reason: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path, family)
    with Checkpoint(folder) as checkpoint, pytest.raises(ModelError, match=reason):
        _open(folder, checkpoint)


def test_a_weight_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "llama")
    weights = _rewritten(folder, "model.layers.1.mlp.up_proj.weight", float("nan"))
    with Checkpoint(folder) as checkpoint:
        skeleton = _open(folder, checkpoint)
        with pytest.raises(ModelError, match=rf"{weights.name}: .*1\.mlp\.up_proj.*NaN"):
            skeleton.layer(1).__enter__()


_MAKERS = {
    "llama": {"q_proj": "input_layernorm", "gate_proj": "post_attention_layernorm"},
    "gemma": {"q_proj": "input_layernorm", "gate_proj": "post_attention_layernorm"},
    "gemma2": {"q_proj": "input_layernorm", "gate_proj": "pre_feedforward_layernorm"},
    "gpt_neox": {
        "query_key_value": "input_layernorm",
        "dense_h_to_4h": "post_attention_layernorm",
    },
    "opt": {
        "q_proj": "self_attn_layer_norm",
        "fc1": "final_layer_norm",
        "out_proj": "self_attn.v_proj",
        "fc2": "fc1",
    },
    # Its layers have one norm before attention and MLP at once.
    "phi": {"q_proj": "input_layernorm"},
}


@pytest.mark.parametrize("family", list(_MAKERS))
def test_what_makes_a_groups_input_is_found_without_a_list_of_families(
    family: str, tmp_path: Path
) -> None:
    folder = make_model(tmp_path, family)
    with Checkpoint(folder) as checkpoint:
        skeleton = _open(folder, checkpoint)
        hidden = skeleton.embed(IDS)
        with skeleton.layer(0) as layer:
            groups = groups_of(layer, hidden)
            found = makers_of(layer, groups, hidden)
            names = {
                name.rpartition(".")[2]: maker.name
                for group, maker in found.items()
                for name in group.names
            }
            assert _MAKERS[family].items() <= names.items()
            want = layer(hidden)
            for group, maker in found.items():
                width = layer.linears()[group.names[0]].in_features
                scales = torch.rand(width, generator=torch.Generator().manual_seed(1)) + 0.5
                layer.fill(multiplied(layer, group, scales) | maker.divided(layer, scales))
            torch.testing.assert_close(layer(hidden), want, atol=2e-4, rtol=2e-4)
            assert not torch.equal(layer(hidden), want)


def test_moments_are_of_all_tokens(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "llama")
    with Checkpoint(folder) as checkpoint:
        skeleton = _open(folder, checkpoint)
        windows = [skeleton.embed(IDS[:20]), skeleton.embed(IDS[10:])]
        with skeleton.layer(0) as layer:
            groups = groups_of(layer, windows[0])
            assert [len(group.names) for group in groups] == [3, 1, 2, 1]
            first = groups[0]
            moments = moments_of(layer, [first], windows)[first]
            with torch.no_grad():
                rows = torch.cat([layer.module.input_layernorm(w)[0] for w in windows])
    torch.testing.assert_close(moments, rows.T @ rows / 40)


def _rewritten(folder: Path, name: str, value: float) -> Path:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[name][0, 0] = value
    save_file(tensors, path, metadata={"format": "pt"})
    return path
