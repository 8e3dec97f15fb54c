"""What a front imports stays small."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lmi.dist


@pytest.mark.slow
def test_the_front_half_imports_no_torch() -> None:
    program = (
        "import sys; from lmi.dist import Answer, Choice, DistConfig, Engine, ProcessEngine;"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    )
    loaded = done.stdout.split()
    assert {"torch", "transformers", "numpy"}.isdisjoint(loaded)
    ours = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("lmi.")}
    assert ours == {"lmi.core", "lmi.dist", "lmi.ipc", "lmi.text"}


@pytest.mark.slow
def test_every_public_name_is_there() -> None:
    for name in lmi.dist.__all__:
        assert getattr(lmi.dist, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Motor'"):
        lmi.dist.Motor  # noqa: B018
