"""Becomes a server process that ends with its parent: `child.py PARENT SIGNAL UID GID COMMAND...`.

A script of its own, and not `preexec_fn`, because running Python between fork and exec is unsafe in
a process that has threads. UID and GID of -1 keep the user; SIGNAL 0: it may outlive its parent.
Exit code 126: the command can't be executed by that user.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, death_signal, uid, gid = (int(word) for word in sys.argv[1:5])
    if gid >= 0:
        os.setgroups([])
        os.setgid(gid)
    if uid >= 0:
        os.setuid(uid)
    # Only now: the kernel forgets the death signal when the user changes.
    if death_signal and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)  # the parent died before the kernel was told to watch it
    try:
        os.execv(sys.argv[5], sys.argv[5:])
    except OSError as error:
        sys.stderr.write(f"{sys.argv[5]}: {error.strerror}\n")
        sys.exit(126)


if __name__ == "__main__":
    main()
