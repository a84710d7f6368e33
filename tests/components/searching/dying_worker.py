"""A builder that dies at one of the entrants, as native code does."""

import json
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    found: dict[str, object] = {}
    for task in json.loads(Path(sys.argv[1]).read_text())["tasks"]:
        if task["id"] == "wide-1":
            os.kill(os.getpid(), signal.SIGSEGV)
        found[task["id"]] = {"reason": "made by nobody", "seconds": 0.5}
        Path(sys.argv[2]).write_text(json.dumps(found))
