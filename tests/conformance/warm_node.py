"""Stands for a client of the process javascript_client.mjs: `python -S warm_node.py SOCKET`.

Its environment, input and SIGTERM are that client's, and what that prints and its exit code are its own.
"""

import json
import os
import signal
import socket
import sys


def ask(path: str) -> int:
    """Run the client, and return its exit code."""
    with socket.socket(socket.AF_UNIX) as here:
        here.connect(path)
        told = {"env": dict(os.environ), "input": sys.stdin.read()}
        here.sendall(json.dumps(told).encode() + b"\n")
        signal.signal(signal.SIGTERM, lambda *_: here.sendall(b"{}\n"))
        for line in here.makefile("rb"):
            said = json.loads(line)
            if "code" in said:
                return int(said["code"])
            for name, text in said.items():
                print(text, end="", file=getattr(sys, name), flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1]))
