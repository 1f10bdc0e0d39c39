"""What Ray and multiprocessing start instead of `python` (see warm_start.py): asks for a fork and stands in for it.

Standard library only, and started with -I -S: it has to be up in milliseconds. When there is nobody to ask, it becomes
the interpreter that was meant.
"""

import contextlib
import json
import os
import signal
import socket
import sys

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(python: str, address: str, arguments: list[str]) -> int:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        os.execv(python, [python, *arguments])
    ours = connection.fileno()
    descriptors = [number for number in map(int, os.listdir("/proc/self/fd")) if number != ours and is_open(number)]
    request = {"arguments": arguments, "environment": dict(os.environ), "cwd": os.getcwd(), "numbers": descriptors}
    body = json.dumps(request).encode("utf-8", "surrogateescape")
    socket.send_fds(connection, [len(body).to_bytes(8, "little")], descriptors)
    connection.sendall(body)
    for forwarded in FORWARDED:
        signal.signal(forwarded, lambda received, _: connection.send(bytes([received])))
    for number in descriptors:  # whoever waits for the other end of a pipe must see it close with the fork
        with contextlib.suppress(OSError):
            os.close(number)
    return wait(connection)


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:  # the one that listed /proc/self/fd
        return False
    return True


def wait(connection: socket.socket) -> int:
    """The fork's exit status; dies of the signal that the fork died of."""
    status = connection.recv(1)  # signals are handled in between (PEP 475)
    ended = int.from_bytes(status + connection.recv(3), "little", signed=True) if status else -signal.SIGKILL
    if ended < 0:
        signal.signal(-ended, signal.SIG_DFL) if -ended != signal.SIGKILL else None
        os.kill(os.getpid(), -ended)
    return ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
