#!/usr/bin/env bash
# Joins this machine to a Ray cluster, by hand. The same environment and the same path of the repository on every node.
#
#   bash scripts/cluster/ray_node.sh head                     # on the first node; prints the address
#   bash scripts/cluster/ray_node.sh worker 10.0.0.1:6379     # on every other node
#   NNODES=2 RAY_ADDRESS=auto bash scripts/run_ekipl_7b.sh    # on the first node, when `ray status` shows all GPUs
#   bash scripts/cluster/ray_node.sh stop                     # on every node, when all is done
#
# PORT   of the head (6379). Further words go to `ray start` (--block keeps it in the foreground).
# Keys (OPENAI_API_KEY, ...) must be exported on every node before this: workers ask the experts, and Ray's workers inherit the
# environment of the node that they run on. They are never sent over the network.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/lib/environment.sh
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
PORT=${PORT:-6379}

case ${1:-} in
    head) exec ray start --head --port="$PORT" --disable-usage-stats "${@:2}" ;;
    worker) exec ray start --address="${2:?give the address of the head: $0 worker HOST:$PORT}" --disable-usage-stats "${@:3}" ;;
    stop) exec ray stop ;;
    *) echo "usage: $0 head | worker HOST:PORT | stop" >&2; exit 2 ;;
esac
