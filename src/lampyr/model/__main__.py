"""The model process: `python -m lampyr.model FD` serves the listening socket FD until nobody calls any more."""

from __future__ import annotations

import argparse
import os
import signal
import socket
from functools import partial

from lampyr.model import catalog, choice
from lampyr.model.backends import Backends
from lampyr.model.server import Server


def main() -> None:
    """Serve until idle, then end with 0; the parent that holds the socket starts a new one on the next call."""
    options = _options()
    # Ctrl-C reaches the whole process group; the parent decides when streams may be cut.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)
    look = (
        partial(choice.Status, backend="echo", model="echo") if options.echo else partial(choice.status, options.model)
    )
    key = os.environ.pop(choice.KEY_VARIABLE, "")
    Server(socket.socket(fileno=options.fd), Backends(look), key).serve_until_idle(options.idle, options.parent)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lampyr.model", description=__doc__)
    parser.add_argument("fd", type=int, help="file descriptor of a listening TCP socket")
    parser.add_argument("--model", default=catalog.DEFAULT, help="name of the local model (%(default)s)")
    parser.add_argument("--echo", action="store_true", help="the echo answers, whatever is installed")
    parser.add_argument("--idle", type=float, default=choice.IDLE_SECONDS, help="seconds until it ends (%(default)s)")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="pid of the process to end with")
    return parser.parse_args()


if __name__ == "__main__":
    main()
