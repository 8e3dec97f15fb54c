"""Train the demo model: `python tools/train_demo_model.py` writes the files of `examples/demo`.

A two-million-parameter Llama learns the documentation text of `demo_corpus`, on one thread of one
CPU core, in under twenty minutes. Same CPython, same library versions, same kind of CPU: same
weights, byte for byte; the seed is fixed, one thread adds in one order, and the card names the
versions. It is there so that a first `make run` needs no download; it knows nothing but how such
text reads.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tokenizers
import torch
import transformers
from demo_card import Figures, Sample, write_card
from demo_corpus import digest, documents
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SEED = 20
BOS, EOS = "<s>", "</s>"  # ids 0 and 1
VOCABULARY = 2048
CONTEXT = 1024  # tokens
HELD_OUT = 50  # one docstring in so many is never trained on: the validation loss comes from these
PROMPTS = (
    "The with statement",
    "The for statement is used to",
    "A list is",
    "Return the number of",
    "If an exception is raised",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast to learn. batch: tokens per step, in windows of `window_at(step)`."""

    steps: int = 1500
    batch: int = 2048
    window: int = 512
    long_window: int = CONTEXT  # for the last part, so that late positions are learnt too
    long_part: float = 0.15
    warm_up: int = 60  # steps
    rate: float = 3e-3
    last_rate: float = 1e-4
    weight_decay: float = 0.1

    def window_at(self, step: int) -> int:
        return self.long_window if step >= self.steps * (1 - self.long_part) else self.window

    def rate_at(self, step: int) -> float:
        """A linear rise, then half a cosine down to `last_rate`."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        along = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.last_rate + (self.rate - self.last_rate) * (1 + math.cos(math.pi * along)) / 2


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=root / "examples" / "demo")
    parser.add_argument("--steps", type=int, default=Recipe().steps, help="fewer for a trial")
    arguments = parser.parse_args()
    recipe = Recipe(steps=arguments.steps)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)

    texts = documents()
    print(f"{len(texts)} documents, {sum(map(len, texts)):,} characters, SHA-256 {digest(texts)}")
    tokenizer = train_tokenizer(texts)
    taught, kept_back = split(texts)
    trained, held_out = encode(tokenizer, taught), encode(tokenizer, kept_back)
    model = new_model()
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"{len(trained):,} tokens to learn, {len(held_out):,} held out; {parameters:,} parameters"
    )

    started = time.process_time()
    loss = train(model, trained, recipe)
    model.to(torch.float16).float()  # the figures and samples are those of the stored weights
    figures = Figures(
        parameters=parameters,
        documents=len(texts),
        characters=sum(map(len, texts)),
        digest=digest(texts),
        tokens=len(trained),
        tokens_seen=recipe.steps * recipe.batch,
        train_loss=loss,
        held_out_loss=validate(model, held_out),
        bytes_per_token=sum(map(len, kept_back)) / len(held_out),
        minutes=(time.process_time() - started) / 60,
        recipe=asdict(recipe),
        versions={
            "CPython": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    )
    print(json.dumps(asdict(figures)))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    save(model, tokenizer, arguments.folder)
    write_card(arguments.folder / "README.md", figures, samples(model, tokenizer))
    print(f"held-out loss {figures.held_out_loss:.3f}; written to {arguments.folder}")


def split(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is learnt and what is held out: docstrings only, since topics quote each other."""
    kept_back = [t for t in texts[::HELD_OUT] if "." in t.partition("\n")[0]]
    held_out = set(kept_back)
    return [t for t in texts if t not in held_out], kept_back


def train_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """A byte-level BPE: every byte has a token, so that any prompt can be read."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[BOS, EOS],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, 0)]
    )
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """All texts in one row of ids, each between BOS and EOS."""
    row = [i for text in tokenizer.encode_batch(texts) for i in (*text.ids, 1)]
    return torch.tensor(row, dtype=torch.long)


def new_model() -> transformers.LlamaForCausalLM:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
            attn_implementation="sdpa",
            dtype=torch.float32,
        )
    )


def windows(row: torch.Tensor, recipe: Recipe) -> Iterator[torch.Tensor]:
    """One batch per step: windows of the row, in a new random order for each pass over it."""
    shuffle = torch.Generator().manual_seed(SEED)
    waiting: list[int] = []
    for step in range(recipe.steps):
        window = recipe.window_at(step)
        batch: list[torch.Tensor] = []
        while len(batch) < recipe.batch // window:
            if not waiting:
                # A random first cut, so that no pass sees the same windows as another.
                first = int(torch.randint(window, (1,), generator=shuffle))
                starts = torch.arange(first, len(row) - recipe.long_window, window)
                waiting = starts[torch.randperm(len(starts), generator=shuffle)].tolist()
            start = waiting.pop()
            batch.append(row[start : start + window])
        yield torch.stack(batch)


def train(model: transformers.LlamaForCausalLM, row: torch.Tensor, recipe: Recipe) -> float:
    """Teach the model the row; returns the mean loss of the last twentieth of the steps."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors}],
        lr=recipe.rate,
        betas=(0.9, 0.98),
        weight_decay=0.0,
        fused=True,
    )
    model.train()
    losses: list[float] = []
    started = time.monotonic()
    for step, batch in enumerate(windows(row, recipe)):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate_at(step)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        report(step + 1, recipe.steps, losses, started)
    last = losses[-max(1, recipe.steps // 20) :]
    return sum(last) / len(last)


def report(done: int, steps: int, losses: list[float], started: float) -> None:
    """A bar on a terminal, a line every fifty steps elsewhere."""
    recent = losses[-50:]
    spent = time.monotonic() - started
    left = spent / done * (steps - done)
    filled = 30 * done // steps
    line = (
        f"[{'#' * filled:30}] step {done}/{steps}  loss {sum(recent) / len(recent):.3f}"
        f"  {spent:.0f} s, {left:.0f} s to go"
    )
    if sys.stdout.isatty():
        print(f"\r{line} ", end="\n" if done == steps else "", flush=True)
    elif done % 50 == 0 or done == steps:
        print(line, flush=True)


@torch.inference_mode()
def validate(model: transformers.LlamaForCausalLM, row: torch.Tensor) -> float:
    """Mean loss in nats per token over full windows of the row."""
    model.eval()
    batches = row[: len(row) // 512 * 512].view(-1, 512)
    return sum(float(model(input_ids=b[None], labels=b[None]).loss) for b in batches) / len(batches)


def samples(model: transformers.LlamaForCausalLM, tokenizer: Tokenizer) -> list[Sample]:
    """What the model says: each prompt greedily and sampled."""
    styles: dict[str, dict[str, float | bool]] = {
        "greedy": {"do_sample": False, "repetition_penalty": 1.1},
        "sampled": {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1},
    }
    found = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer.encode(prompt).ids])
        for style, options in styles.items():
            torch.manual_seed(SEED)
            reply = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=60,
                pad_token_id=1,
                **options,
            )[0, ids.shape[1] :].tolist()
            found.append(Sample(prompt, style, tokenizer.decode(reply), ended=reply[-1] == 1))
    return found


def save(model: transformers.LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the weights as float16 and the tokenizer, as any Llama folder has them."""
    half = model.to(torch.float16)
    half.generation_config.eos_token_id = 1
    half.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # save_pretrained leaves it to its owner alone
    model.float()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


if __name__ == "__main__":
    main()
