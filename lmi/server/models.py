"""/models: which models stand here, and how they are doing."""

from __future__ import annotations

from collections.abc import Mapping

from lmi.core import EngineStats, FunctionInfo
from lmi.server.errors import ModelNotFound
from lmi.server.ping import STATUS
from lmi.session import Served, State


def listing(sessions: Mapping[str, Served]) -> dict[str, object]:
    """The reference's list of models; all fit on one page."""
    return {
        "models": [
            {"modelName": name, "modelUrl": name, "status": STATUS[session.health().state]}
            for name, session in sessions.items()
        ]
    }


def describe(sessions: Mapping[str, Served], name: str) -> list[dict[str, object]]:
    """The reference's description of one model, with the engine's facts; raises ModelNotFound."""
    session = sessions.get(name)
    if session is None:
        raise ModelNotFound(f"Model not found: {name}")
    health, info, stats = session.health(), session.info, session.stats()
    ready = health.state is State.READY
    model: dict[str, object] = {
        "modelName": name,
        "modelUrl": name,
        "batchSize": 1,
        "queueSize": session.max_queue,
        "requestInQueue": stats.waiting,
        "status": STATUS[health.state],
        "loadedAtStartup": True,
        "workerGroups": [
            {
                "device": {"deviceType": "cpu", "deviceId": -1},
                "minWorkers": 1,
                "maxWorkers": 1,
                "workers": [{"id": 1, "status": "READY" if ready else "UNLOADING"}],
            }
        ],
        "state": str(health.state),
        "reason": health.reason,
        "running": stats.running,
    }
    if isinstance(stats, EngineStats):
        model["kvBlocks"] = {"used": stats.kv_blocks_used, "total": stats.kv_blocks_total}
    if isinstance(info, FunctionInfo):
        model["function"] = {
            "name": info.name,
            "workers": info.workers,
            "concurrency": info.concurrency,
            "details": dict(info.details),
        }
    elif info is not None:
        model["engine"] = {
            "name": info.engine,
            "model": info.model,
            "maxModelLength": info.max_model_len,
            "maxBatchSize": info.max_batch,
            "vocabularySize": info.vocab_size,
            "details": dict(info.details),
        }
    return [{"workflowName": name, "models": [model]}]
