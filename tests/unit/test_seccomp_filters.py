"""The filter as a file, and in the kernel: real processes under it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from runtime.capabilities import NUMBERS, USUAL
from runtime.seccomp import filters, numbers
from sdn.model.errors import HawseError, Kind

CAPABILITIES = [NUMBERS[name] for name in USUAL]

UNDER_THE_FILTER = """
import ctypes, json, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
program = open(sys.argv[1], "rb").read()
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(len(program) // 8, program)), 0, 0) == 0
def call(number, *arguments):
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    return ctypes.get_errno()
found = [call(*wish) for wish in json.loads(sys.argv[2])]
thread = threading.Thread(target=lambda: found.append("thread"))
thread.start(); thread.join()
found.append(subprocess.run(["/bin/echo", "child"], capture_output=True, text=True).stdout.strip())
print(json.dumps(found))
"""


def test_the_kernel_refuses_what_the_profile_refuses(tmp_path):
    path = filters.compiled(tmp_path, CAPABILITIES)
    machine = os.uname().machine
    native = numbers.ARCHITECTURES[machine][0]
    wishes = [
        ("keyctl", (0, 0), errno.EPERM),
        ("unshare", (0x10000000,), errno.EPERM),
        ("mount", (0, 0, 0, 0, 0), errno.EPERM),
        ("clone", (0x10000000 | 17, 0, 0, 0, 0), errno.EPERM),
        ("clone3", (0, 0), errno.ENOSYS),
        ("personality", (0x40000,), errno.EPERM),
        ("personality", (0xFFFFFFFF,), 0),
        ("socket", (40, 1, 0), errno.EPERM),
        ("socket", (40 | 1 << 32, 1, 0), errno.EPERM),
        ("socket", (1, 1, 0), 0),
        ("io_uring_setup", (1, 0), errno.ENOSYS),
        ("getpid", (), 0),
        ("close", (-1,), errno.EBADF),
    ]
    number = numbers.resolve({name for name, _, _ in wishes}, native)
    asked = [(number[name], *arguments) for name, arguments, _ in wishes]
    asked.append((9999,))
    command = [sys.executable, "-I", "-c", UNDER_THE_FILTER, str(path), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *found, unknown, thread, child = json.loads(done.stdout)
    assert list(zip(wishes, found, strict=True)) == [(wish, wish[2]) for wish in wishes]
    assert (unknown, thread, child) == (errno.ENOSYS, "thread", "child")


def test_compiled_once_and_by_what_it_is_made_of(tmp_path, monkeypatch):
    path = filters.compiled(tmp_path / "new", CAPABILITIES)
    before = path.stat().st_ino
    assert filters.compiled(tmp_path / "new", reversed(CAPABILITIES)) == path
    assert path.stat().st_ino == before
    more = filters.compiled(tmp_path / "new", [*CAPABILITIES, NUMBERS["SYS_ADMIN"]])
    assert more != path
    monkeypatch.setattr(numbers, "version", lambda: "99.0.0")
    assert filters.compiled(tmp_path / "new", CAPABILITIES) not in (path, more)
    assert all(name.endswith(".bpf") for name in os.listdir(tmp_path / "new"))


@pytest.mark.parametrize("damage", [b"", b"12345"])
def test_a_torn_file_is_made_anew(tmp_path, damage):
    path = filters.compiled(tmp_path, CAPABILITIES)
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert filters.compiled(tmp_path, CAPABILITIES).read_bytes() == whole


def test_what_cannot_be_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(HawseError, match="cannot keep the compiled seccomp filter") as caught:
        filters.compiled(tmp_path / "file" / "below", CAPABILITIES)
    assert caught.value.kind is Kind.UNAVAILABLE
    monkeypatch.setattr(numbers, "ARCHITECTURES", {"other": ()})
    with pytest.raises(HawseError, match="no profile for the architecture"):
        filters.compiled(tmp_path, CAPABILITIES)


def test_without_libseccomp_the_package_is_named(tmp_path, monkeypatch):
    numbers._library.cache_clear()
    monkeypatch.setattr(numbers, "LIBRARY", "libnothing.so.7")
    with pytest.raises(HawseError, match="apt install libseccomp2"):
        filters.compiled(tmp_path, CAPABILITIES)
    numbers._library.cache_clear()
