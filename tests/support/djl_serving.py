"""A stand-in for the DJL model server's launcher: it records how it was started, and ends as told.

Nothing of the server is in it. `install` makes a folder that looks like an installed server: a
launcher (this file) in bin, and a jar in lib that says the version of a Python engine. Started, it
writes record.json into the folder: words, variables, the files that its config.properties leads
to. Then it creates the file `started` and waits for a signal; how it ends is in the variable
STAND_IN_EXIT: a number (at once), or `signal` (wait; SIGTERM ends it with 143, as Java).
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import zipfile
from pathlib import Path

RECORD = "record.json"
STARTED = "started"


def install(home: Path, version: str) -> Path:
    """Make an installed server out of nothing; returns its folder."""
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    with zipfile.ZipFile(home / "lib" / f"python-{version}.jar", "w") as jar:
        jar.writestr("native/lib/python.properties", f"version={version}\nlibraries=x\n")
    launcher = home / "bin" / "djl-serving"
    launcher.write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    return home


def _files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text("utf-8", "replace")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _main() -> None:
    home = Path(__file__).parent.parent
    config = Path(sys.argv[sys.argv.index("-f") + 1])
    engines = Path(os.environ["ENGINE_CACHE_DIR"])
    record = {
        "words": sys.argv[1:],
        "pid": os.getpid(),
        "environ": dict(os.environ),
        "config": config.read_text(),
        "run": _files(config.parent),
        "engines": sorted(str(path.relative_to(engines)) for path in engines.rglob("*.py")),
    }
    (home / RECORD).write_text(json.dumps(record))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    (home / STARTED).touch()
    ending = os.environ.get("STAND_IN_EXIT", "signal")
    if ending != "signal":
        sys.exit(int(ending))
    signal.pause()


if __name__ == "__main__":
    _main()
