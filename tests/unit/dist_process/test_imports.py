"""What a front imports stays small."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lmi.dist


@pytest.mark.slow
def test_the_front_half_imports_no_torch() -> None:
    program = (
        "import sys; from lmi.dist import DistConfig, Engine, ProcessEngine;"
        "sys.exit(not {'torch', 'transformers', 'numpy'}.isdisjoint(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Motor'"):
        lmi.dist.Motor  # noqa: B018
