"""What is compared with vLLM behind a server: the same library, model and flags behind each.

Every subject has one thread for the model, the same allocator, at most MAX_BATCH requests at once,
no prefix cache and no compiling. What differs is what stands around the library.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from benchmarks.load_dialects import MODEL
from benchmarks.offline.subjects import TCMALLOC
from benchmarks.serving import ONE_THREAD, lmi_serve

MAX_BATCH: Final = 32
MAX_MODEL_LEN: Final = 1024
# vLLM's own server has a console script too; the module is the same server, and also starts where
# the library is installed under another name than `vllm`.
VLLM_SERVER: Final = "vllm.entrypoints.openai.api_server"
# For every subject. Binding threads to cores is off, since it would leave a server's two processes
# one core each and the load generator none.
VARIABLES: Final = ONE_THREAD | {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "LD_PRELOAD": str(TCMALLOC) if TCMALLOC.exists() else "",
}


OFFLINE: Final = "offline"
VLLM_SERVE: Final = "vllm serve"
LMI_SERVE: Final = "lmi serve"
LMI_INVOCATIONS: Final = "lmi serve /invocations"
JAVA_ROLLING: Final = "java, rolling"
STOCK_ROLLING: Final = "java, rolling, stock handlers"
JAVA_ASYNC: Final = "java, async"
STOCK_ASYNC: Final = "java, async, stock handlers"
HTTP: Final = (VLLM_SERVE, LMI_SERVE, LMI_INVOCATIONS)
JAVA: Final = (JAVA_ROLLING, STOCK_ROLLING, JAVA_ASYNC, STOCK_ASYNC)
SUBJECTS: Final = (OFFLINE, *HTTP, *JAVA)


def vllm_serve(model: Path, dtype: str, port: int) -> list[str]:
    """vLLM's own server."""
    return [
        *(sys.executable, "-m", VLLM_SERVER, "--model", str(model)),
        *("--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", dtype, "--max-model-len", str(MAX_MODEL_LEN)),
        *("--max-num-seqs", str(MAX_BATCH), "--enforce-eager", "--no-enable-prefix-caching"),
    ]


def properties(model: Path, dtype: str) -> str:
    """Ours."""
    return (
        f"engine=Python\noption.model_id={model}\n"
        f"option.rolling_batch=vllm\noption.dtype={dtype}\n"
        f"option.max_rolling_batch_size={MAX_BATCH}\noption.max_model_len={MAX_MODEL_LEN}\n"
        "option.enforce_eager=true\noption.enable_prefix_caching=false\n"
    )


def our_server(model: Path, dtype: str, port: int, home: Path) -> list[str]:
    """Ours. home: a folder for its model's folder, which gives the model its name."""
    folder = home / MODEL
    folder.mkdir()
    (folder / "serving.properties").write_text(properties(model, dtype))
    return lmi_serve(folder, port)
