#!/usr/bin/env bash
# Waits until the Ray cluster at RAY_ADDRESS has NNODES nodes with NGPUS GPUs each, then runs the words that follow.
#
#   NNODES=2 NGPUS=8 RAY_ADDRESS=auto bash scripts/cluster/wait_for_nodes.sh bash scripts/run_ekipl_7b.sh
#
# WAIT   seconds before it gives up (600)
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/lib/environment.sh
python - <<'PY'
import os, sys, time

import ray

nodes, gpus, until = int(os.environ["NNODES"]), int(os.environ["NGPUS"]), time.monotonic() + float(os.environ.get("WAIT", 600))
have, why = 0.0, "nobody answers"
while time.monotonic() < until:
    try:
        ray.init(address=os.environ["RAY_ADDRESS"], logging_level="ERROR", log_to_driver=False, ignore_reinit_error=True)
        alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) >= gpus]
        if len(alive) >= nodes:
            sys.exit(0)
        why = f"{len(alive)} of {nodes} nodes with {gpus} GPUs are there"
    except (ConnectionError, RuntimeError) as error:
        why = str(error)
    time.sleep(2)
sys.exit(f"the Ray cluster at {os.environ['RAY_ADDRESS']} is not complete: {why}. See `ray status` there.")
PY
exec "$@"
