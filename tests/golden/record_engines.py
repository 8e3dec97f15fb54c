"""Records which engine each real configuration runs on: `python -m tests.golden.record_engines`.

Read the difference before committing it: each line that changed is a user whose engine changed.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.golden.test_configurations import ACCEPTED, ENGINES, resolved

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        found = {
            each.name: resolved(each, Path(made) / str(index)).spec.engine
            for index, each in enumerate(ACCEPTED)
        }
    ENGINES.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="ascii")
