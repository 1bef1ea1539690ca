"""Processes for tests of cgroups: in a pid namespace of their own, so that whatever they leave behind is reaped.

The namespace's first process stays outside of the cgroup; what it starts enters it first.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

from runtime.cgroup import Cgroup

PROLOGUE = """
import json, os, signal, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # reaped by the kernel
FILES = json.loads(sys.argv[1])
def enter():
    for file in FILES:
        with open(file, "w") as procs:
            procs.write("0")
def start(act):  # returns once it is inside
    inside, entered = os.pipe()
    if os.fork() == 0:
        enter()
        os.write(entered, b"x")
        try:
            act()
        finally:
            os._exit(0)
    os.read(inside, 1)
    os.close(inside)
    os.close(entered)
def rest():
    while True:
        signal.pause()
def spin():
    while True:
        pass
def talk():
    while True:
        os.write(1, b"x")
def hop():  # a new pid all the time: who kills pid by pid comes too late
    while True:
        if os.fork():
            os._exit(0)
def bomb():
    while True:
        try:
            os.fork()
        except OSError:
            pass
"""


@contextlib.contextmanager
def population(cgroup: Cgroup, starts: str) -> Iterator[IO[bytes]]:
    """Run Python `starts` (`start(rest)`, …) in a new pid namespace. Gives its output, after a first line "ready"."""
    mounts = cgroup.hierarchies.all
    files = [f"{mount}/{cgroup.path}/cgroup.procs" for mount in mounts if os.path.isdir(f"{mount}/{cgroup.path}")]
    script = f"{PROLOGUE}\n{starts}\nos.write(1, b'ready\\n')\nrest()\n"
    listed = "[" + ",".join(f'"{file}"' for file in files) + "]"
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-I", "-S", "-c", script, listed]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        process.kill()  # and by --kill-child the namespace's first process, and by that all others
        process.communicate()


def run_inside(cgroup: Cgroup, *command: str) -> int:
    """Enter by the descriptors, as a container's process does, and execute. Returns: subprocess's return code."""
    descriptors = [*cgroup.procs_fds]
    if cgroup.v2_fd >= 0:
        descriptors.append(os.open("cgroup.procs", os.O_WRONLY, dir_fd=cgroup.v2_fd))
    entering = "; ".join(f"echo 0 >&{descriptor}" for descriptor in descriptors)
    try:
        return subprocess.run(
            ["bash", "-c", f'{entering}; exec "$@"', "bash", *command], pass_fds=descriptors, check=False, timeout=60
        ).returncode
    finally:
        if cgroup.v2_fd >= 0:
            os.close(descriptors[-1])
