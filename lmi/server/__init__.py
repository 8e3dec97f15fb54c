"""The embedded server: an HTTP front over sessions, in Python, with no Java.

app = build_app(sessions, config)
await serve(app, config, sessions, bind(config))     until SIGTERM
"""

from lmi.server.app import build_app
from lmi.server.config import ServerConfig
from lmi.server.run import bind, serve

__all__ = ["ServerConfig", "bind", "build_app", "serve"]
