"""What the DJL model server runs as its Python engine, from `$DJL_CACHE_DIR/python/VERSION/`."""

import sys

try:
    from lmi.launch.worker import main
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "lmi":
        raise
    print(  # Java shows the last lines of a worker that ends before its marker
        f"{sys.executable} has no package lmi: install it there, "
        "or set PYTHON_EXECUTABLE to a Python that has it",
        file=sys.stderr,
    )
    sys.exit(2)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
