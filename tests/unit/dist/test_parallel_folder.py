"""A killed front's folder does not stay for ever, and a living one's is left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from lmi.dist.parallel.folder import JobFolder

FRONT = """
import sys
from pathlib import Path
from lmi.dist.parallel.folder import JobFolder
folder = JobFolder(Path(sys.argv[1]))
(folder.path / "meeting").write_text("x")
print(folder.path, flush=True)
sys.stdin.read()
"""


def test_a_folder_ends_with_its_job(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    (folder.path / "meeting").write_text("x")
    folder.close()
    folder.close()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_front_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "lmi-else").mkdir()  # of others: never touched
    front = subprocess.Popen(
        [sys.executable, "-c", FRONT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with front:
        assert front.stdout is not None
        left = Path(front.stdout.readline().strip())
        JobFolder(tmp_path, young=0).close()
        assert left.is_dir()  # its front lives
        front.send_signal(signal.SIGKILL)
    JobFolder(tmp_path).close()
    assert left.is_dir()  # too young to judge
    JobFolder(tmp_path, young=0).close()
    assert [path.name for path in tmp_path.iterdir()] == ["lmi-else"]
