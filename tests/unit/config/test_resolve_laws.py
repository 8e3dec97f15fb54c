"""What is true of resolving whatever is put in."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmi.config import ConfigErrors, Resolution, resolve
from lmi.config.kinds import Checked, Choice, Flag, Json, Kind, Real, Size, Text, Tokens, Whole
from lmi.config.options import ENGINES, TABLE
from lmi.config.options.workers import variables
from lmi.config.properties import render
from lmi.core import ConfigError
from tests.unit.config.harness import ALL, HERE

LLAMA = '{"architectures": ["LlamaForCausalLM"]}'
HANDLER = "def handle(inputs): ...\n"

_KEYS = st.sampled_from([option.key for option in TABLE]) | st.text(max_size=12)
_VALUES = st.sampled_from(
    ["auto", "true", "false", "0", "1", "2", "-1", "max", "vllm", "lmi-dist", "MPI", "disable", ""]
) | st.text(max_size=12)
_VARIABLES = st.sampled_from([option.variable for option in TABLE]) | st.text(
    alphabet="OPTIN_SERVG", min_size=1, max_size=16
)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "model"
        folder.mkdir()
        (folder / "config.json").write_text(LLAMA)
        yield folder


def _likely(kind: Kind, rng: random.Random) -> str:
    """A text that the kind accepts, most of the time."""
    match kind:
        case Flag():
            return rng.choice(("true", "False", "1"))
        case Choice():
            return rng.choice(kind.words)
        case Whole():
            least = 0 if kind.least is None else kind.least
            return rng.choice((str(least + rng.randrange(100)), *kind.words))
        case Real():
            return rng.choice((str(max(kind.least or 0.0, 0.5)), "1", *kind.words))
        case Tokens():
            return rng.choice(("2048", "4k", "auto"))
        case Size():
            return rng.choice(("4GiB", "1000000"))
        case Json():
            return "{}"
        case Checked():
            return "KEY=value" if kind.read is variables else "0;1"
        case Text(label) if label.startswith("a method"):
            return rng.choice(("none", "awq", "fp8", "gptq"))
        case _:
            return rng.choice(("a text", "json", "http://0.0.0.0:81", "x#y \\ = é"))


@settings(deadline=None)  # the tables are read at the first example
@given(
    st.dictionaries(_KEYS, _VALUES, max_size=6),
    st.dictionaries(_VARIABLES, _VALUES, max_size=4),
    st.dictionaries(_KEYS, _VALUES, max_size=2),
    st.sampled_from([HERE, ALL, frozenset[str]()]),
    st.booleans(),
)
def test_any_input_gives_a_spec_or_errors_that_name_option_and_source(
    file: dict[str, str],
    environ: dict[str, str],
    flags: dict[str, str],
    installed: frozenset[str],
    handler: bool,
) -> None:
    with _folder() as folder:
        (folder / "serving.properties").write_text(render(file))
        if handler:
            (folder / "model.py").write_text(HANDLER)
        found, problems = _outcome(folder, environ, flags, installed)
    if found is not None:
        assert found.spec.engine in installed
    places = (*environ, *(f"--set {key}" for key in flags), str(folder), "default")
    for problem in problems:
        assert problem.option or "" in file or "" in flags
        assert problem.want
        assert problem.source in places or problem.source.startswith("serving.properties:")
    assert (found is None) == bool(problems)


def _outcome(
    folder: Path, environ: dict[str, str], flags: dict[str, str], installed: frozenset[str]
) -> tuple[Resolution | None, tuple[ConfigError, ...]]:
    try:
        return resolve(folder, environ, flags, installed=installed), ()
    except ConfigErrors as errors:
        return None, errors.problems


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_file_gives_a_spec_or_errors(text: str) -> None:
    with _folder() as folder:
        (folder / "serving.properties").write_bytes(text.encode("utf-8", "surrogatepass"))
        found, problems = _outcome(folder, {}, {}, HERE)
    assert (found is None) == bool(problems)


def _again(found: Resolution, folder: Path) -> Resolution:
    (folder / "serving.properties").write_text(found.render())
    return resolve(folder, {}, installed=ALL)


@pytest.mark.parametrize("seed", range(60))
def test_resolving_the_rendered_settings_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    engine = rng.choice([name for name in ENGINES if name in ALL])
    usable = [
        option
        for option in TABLE
        if option.use(engine).verdict != "refused"
        and option.key not in ("option.entryPoint", "engine", "option.rolling_batch")
    ]
    with _folder() as folder:
        if rng.random() < 0.2:
            (folder / "model.py").write_text(HANDLER)
        given_text = {}
        for option in rng.sample(usable, 12):
            limit = option.limits.get(engine)
            given_text[option.key] = (
                str(rng.choice(limit.values)) if limit else _likely(option.kind, rng)
            )
        given_text.pop("option.handler", None)
        if engine == "python":
            given_text["option.rolling_batch"] = "disable"
        elif engine == "echo":
            given_text["engine"] = "echo"
        else:
            given_text["option.rolling_batch"] = engine
        if "inference_address" in given_text:
            given_text["inference_address"] = "http://0.0.0.0:81"
        if "option.output_formatter" in given_text:
            given_text["option.output_formatter"] = "sse"
        in_file = {key: text for key, text in given_text.items() if rng.random() < 0.6}
        environ = {
            option.variable: given_text[option.key]
            for option in TABLE
            if option.key in given_text and option.key not in in_file
        }
        (folder / "serving.properties").write_text(render(in_file))
        first = resolve(folder, environ, installed=ALL)
        second = _again(first, folder)
        assert second.spec == first.spec
        assert _again(second, folder).spec == first.spec
