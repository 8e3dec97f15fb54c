"""The live requests of one model over an engine: admission, dispatch, supervision.

    session = Session(config, load)
    session.start()                      loads in a thread; `await session.ready()`
    session.accept(call, sink) -> Live   the sink gets the answer's bytes, from the event loop
    live.cancel()                        the client left
    await session.drain(grace)           before the process ends

A front gives a `Sink`, because the bytes of a step must reach all clients without waking a task for
each; `collect` and `stream` are for callers that would rather await. `FunctionSession` is the same
over a function: a user's or a library's handler in worker processes.
"""

from lmi.session.adapter_call import BadAdapterCall, changed_adapter, wanted_adapter
from lmi.session.adapters import Adapters, LoraNotEnabled
from lmi.session.awaitable import collect, stream
from lmi.session.config import Loaded, Progress, SessionConfig
from lmi.session.function_call import FunctionCall
from lmi.session.function_session import FunctionConfig, FunctionSession
from lmi.session.live import Live, Sink
from lmi.session.measures import Histogram, Measures
from lmi.session.served import Accepted, Served
from lmi.session.session import Session
from lmi.session.states import Health, State

__all__ = [
    "Accepted",
    "Adapters",
    "BadAdapterCall",
    "FunctionCall",
    "FunctionConfig",
    "FunctionSession",
    "Health",
    "Histogram",
    "Live",
    "Loaded",
    "LoraNotEnabled",
    "Measures",
    "Progress",
    "Served",
    "Session",
    "SessionConfig",
    "Sink",
    "State",
    "changed_adapter",
    "collect",
    "stream",
    "wanted_adapter",
]
