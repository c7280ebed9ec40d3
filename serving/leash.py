"""Runs a command that ends with its parent: ``python -I -S leash.py PARENT_PID COMMAND …``, standard library only.

The signal at the parent's death has to be asked for in the child, before the command takes over. Doing that in
``preexec_fn`` would make Python fork, and gRPC's fork handlers then now and then abort the child.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Sets the leash and becomes the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) or os.getppid() != parent:
        sys.exit("leash: the parent is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
