"""``python -m pipelines.fleet.climbing REQUEST.json ROW.json``: one model's run, from a process where KFP is whole.

Inside of a step KFP is cut down (``_KFP_RUNTIME``): it can run the step's function and has no client.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pipelines.fleet.children import Child, climb, server_of_the_pod
from pipelines.fleet.packing import unpack
from pipelines.fleet.rows import Row, failed

_RUNTIME = "_KFP_RUNTIME"


def climb_apart(fleet: str, model: str, child: Child, host: str, namespace: str) -> Row:
    """The row of one model, whatever becomes of the process that makes it.

    Args:
        fleet: as a pipeline parameter.
        model: name of the job in it.
        child: how its run is started.
        host: of Kubeflow Pipelines; empty: as `server_of_the_pod` finds it.
        namespace: of a multi-user Kubeflow.
    """
    request = {"fleet": fleet, "model": model, "child": child, "host": host, "namespace": namespace}
    environment = {name: value for name, value in os.environ.items() if name != _RUNTIME}
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "request.json", Path(folder) / "row.json"
        question.write_text(json.dumps(request))
        command = [sys.executable, "-m", __name__, str(question), str(answer)]
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
        if answer.exists():
            return Row.model_validate_json(answer.read_text())
    words = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return failed(model, f"its run could not be started: {words[0]}")


def main(request_file: str, row_file: str) -> None:
    """Does what the request says."""
    request = json.loads(Path(request_file).read_text())
    job = unpack(request["fleet"]).job(request["model"])
    row = climb(job, server_of_the_pod(request["host"], request["namespace"]), Child(*request["child"]))
    Path(row_file).write_text(row.model_dump_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
