"""The front behind the DJL model server: its socket's wire, and the loops over one session.

    run(Arguments.parse(sys.argv[1:], os.environ), host) -> exit code

Java starts the process, drives it over one socket and ends it; `wire` states the bytes and the
rules, `worker` the life of the process.
"""

from lmi.djl.arguments import Arguments
from lmi.djl.host import Host
from lmi.djl.wire import Message, ProtocolError, Width
from lmi.djl.worker import run

__all__ = ["Arguments", "Host", "Message", "ProtocolError", "Width", "run"]
