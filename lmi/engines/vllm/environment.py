"""The environment of the worker that runs vLLM; of no other process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lmi.config.spec import ModelSpec
from lmi.engines.devices import visible_gpus

# In the worker itself and not in a process below it: one hop less, and ready half a minute sooner.
_OURS: Final = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}

# Where the user says nothing. Our worker has threads when vLLM starts its ranks: no fork.
_DEFAULTS: Final = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
# On a processor vLLM would take 92 % of all memory for its KV cache, and not start where so much is
# in use. This many GiB are what it took there in earlier releases.
_PROCESSOR_CACHE: Final = {"VLLM_CPU_KVCACHE_SPACE": "4"}
_SIZED_BY: Final = frozenset({"kv_cache_memory_bytes", "gpu_memory_utilization"})
_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def worker_variables(
    spec: ModelSpec, folder: Path, arguments: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, str]:
    """The variables to set. environ: this process's, whose own values of vLLM's stay.

    Nothing is fetched while all that vLLM loads is a local folder.
    """
    draft = arguments.get("speculative_config")
    names = [draft["model"]] if isinstance(draft, dict) and "model" in draft else []
    names += [arguments[name] for name in ("tokenizer", "hf_config_path") if name in arguments]
    local = all(Path(name).is_dir() for name in names)
    found = {**_DEFAULTS, **(_OFFLINE if local else {})}
    if _SIZED_BY.isdisjoint(arguments) and not visible_gpus(environ):
        found |= _PROCESSOR_CACHE
    found = {name: text for name, text in found.items() if name not in environ}
    if spec.threads is not None:
        found["OMP_NUM_THREADS"] = str(spec.threads)
    if (lmcache := spec.options.get("lmcache_config_file")) is not None:
        found["LMCACHE_CONFIG_FILE"] = str(folder / str(lmcache))
    return {**found, **_OURS}
