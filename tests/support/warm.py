"""Python programs that start in no time: a process that has imported what they need forks itself for each of them.

`python warm.py SOCKET MODULE…` is that process, `python -S warm.py SOCKET PROGRAM.py` starts a program in it, with this
process' environment, descriptors and signals: for tests that start a client dozens of times.
"""

import os
import socket
import sys

_LENGTH = 4


def ask(path: str, program: str) -> int:
    """Run a program in a fork, and return its exit code."""
    import signal

    told = "\0".join([program, *(f"{name}={value}" for name, value in os.environ.items())]).encode()
    with socket.socket(socket.AF_UNIX) as here:
        here.connect(path)
        socket.send_fds(here, [len(told).to_bytes(_LENGTH, "big")], [0, 1, 2])
        here.sendall(told)
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        signal.signal(signal.SIGTERM, lambda *_: here.send(b"T"))
        code = here.recv(1)
        return code[0] if code else 0


def serve(path: str, modules: list[str]) -> None:
    """Wait for programs to start, until the standard input ends."""
    import importlib
    import select
    import signal

    for module in modules:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen(128)
        os.rename(f"{path}.new", path)  # where it stands it listens
        both: list[socket.socket | int] = [listener, 0]
        while listener in select.select(both, [], [])[0]:
            asked, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                run(asked)
            asked.close()


def run(asked: socket.socket) -> None:
    """Be the program that is asked for."""
    import runpy
    import signal
    import threading
    import traceback

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, descriptors, _, _ = socket.recv_fds(asked, _LENGTH, 3)
    missing = int.from_bytes(length, "big")
    told = b""
    while len(told) < missing:
        told += asked.recv(missing - len(told))
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    program, *variables = told.decode().split("\0")
    os.environ.clear()
    os.environ.update((name, value) for name, _, value in (each.partition("=") for each in variables))

    def hear() -> None:
        while asked.recv(1):
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)  # the one who has asked was killed

    threading.Thread(target=hear, daemon=True).start()
    code = 0
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        asked.send(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[2].endswith(".py"):
        sys.exit(ask(*sys.argv[1:]))
    serve(sys.argv[1], sys.argv[2:])
