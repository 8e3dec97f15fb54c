"""`lmi serve`: fetch, load, listen, until a signal."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from lmi.cli.failures import told
from lmi.cli.inputs import Folder, FrontChoice, FrontOption, Sets, chosen_server, resolution


def serve(
    folder: Folder = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="ID", help="A hub id, a folder or s3://bucket/prefix to serve."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any free one.")] = None,
    sets: Sets = None,
    front: FrontOption = FrontChoice.AUTO,
    log_level: Annotated[
        str, typer.Option(help="debug, info, warning or error.", envvar="LMI_LOG_LEVEL")
    ] = "info",
) -> None:
    """Serve a model until SIGTERM. Exit code 0, 2 (can't be served) or 3 (a build failed).

    Behind the DJL model server this process becomes that server: signals go to it, and the exit
    code is its own.

    Under mpirun, with as many processes as the model has ranks, the first one serves and the others
    compute with it.

    Examples:

    lmi serve examples/demo --port 8080

    lmi serve --model org/model --set option.max_model_len=4096
    """
    from lmi.dist.parallel.foreign import follow, is_follower
    from lmi.launch import logs

    if is_follower():
        raise typer.Exit(follow())
    with told():
        extra = {} if model is None else {"option.model_id": model}
        resolved = resolution(folder, sets, extra, front=front)
        logs.configure(log_level)
        from lmi.launch.serve import Address

        java = chosen_server(front)
        if java is not None:
            from lmi.launch.djl.start import serve as become

            become(resolved, os.environ, Address(host, port), java, log_level)
        from lmi.launch.serve import serve as run

        run(resolved, os.environ, Address(host, port))
