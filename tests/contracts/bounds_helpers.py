"""The bounds of a run for the tests, and a server that counts what they let out."""

import json
import socket
import threading
import time

from ekipl_rollout.settings import BoundsSettings, EkiplSettings, ExpertSettings

PRICE = 0.0181  # dollars of each request


def expert(name="gpt", **settings):
    return ExpertSettings(name, "openai", "m", "http://127.0.0.1:1/v1", **settings)


def run_settings(tmp_path, *experts, **bounds):
    return EkiplSettings(
        experts=experts or (expert(),), run_dir=str(tmp_path), bounds=BoundsSettings(**bounds), keep_groups=False
    )


class Counting:
    """A server that notes when each request came and how many were there at once. Raw sockets: it must not be slower
    than what it measures."""

    def __init__(self):
        self.times, self.now, self.most = [], 0, 0
        self.lock = threading.Lock()
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection:
            connection.recv(100)
            with self.lock:
                self.times.append(time.monotonic())
                self.now += 1
                self.most = max(self.most, self.now)
            time.sleep(0.05)
            with self.lock:
                self.now -= 1
            connection.sendall(json.dumps({"dollars": PRICE}).encode())
