"""The file in which `lmi serve` tells its worker behind Java everything that it has decided.

Java reads the `serving.properties` beside it, which says no more than Java needs. A worker that
finds this file needs neither Java's map nor the environment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from lmi.config import Front, Resolution, resolve
from lmi.config.quantization import Hardware
from lmi.config.variables import VARIABLES
from lmi.core import ConfigError

FILE: Final = "lmi.json"


@dataclass(frozen=True, slots=True)
class Staged:
    """A decided configuration. folder: the model's own, where it has one. fetched: where the
    model's files are. settings: every option that is set, as in serving.properties."""

    settings: Mapping[str, str]
    folder: Path | None = None
    fetched: Path | None = None

    @classmethod
    def read(cls, folder: Path) -> Staged | None:
        """What stands in a folder; None where there is no such file. Raises ConfigError."""
        path = folder / FILE
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(FILE, None, str(path), error.strerror or str(error)) from error
        try:
            return msgspec.json.decode(text, type=cls, dec_hook=_read)
        except msgspec.DecodeError as error:
            want = f"expected what `lmi serve` writes: {error}"
            raise ConfigError(FILE, None, str(path), want) from error

    def write(self, folder: Path) -> None:
        """Write it into a folder; OSError as it comes."""
        text = msgspec.json.format(msgspec.json.encode(self, enc_hook=str), indent=1)
        (folder / FILE).write_bytes(text + b"\n")

    def resolve(
        self,
        environ: Mapping[str, str],
        installed: Collection[str],
        vllm: str | None = None,
        hardware: Hardware | None = None,
    ) -> Resolution:
        """The same configuration again; of the environment only what sets no option is read.

        Raises ConfigErrors.
        """
        facts = {
            name: text
            for name, text in environ.items()
            if name in VARIABLES and not VARIABLES[name].keys
        }
        return resolve(
            self.folder,
            facts,
            self.settings,
            installed=installed,
            front=Front.DJL,
            vllm=vllm,
            hardware=hardware,
        )


def _read(kind: type, value: object) -> object:
    """How msgspec reads a path, which it does not know."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(kind)
