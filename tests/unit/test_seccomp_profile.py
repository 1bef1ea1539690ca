"""The profile against another well-known one, compiled by libseccomp: equal, or different for a stated reason."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from runtime.capabilities import NAMES, NUMBERS, USUAL
from runtime.seccomp import numbers, profile
from runtime.seccomp.filters import compile_verdicts
from tests.unit import seccomp_oracle
from tests.unit.classic_bpf import ALLOW, Call, load

TIED = "other kernel surface than a program needs: Docker, too, gives it with the capability alone"
NEWER = "newer than the oracle"
NEWER_TIED = "newer than the oracle, and tied to a capability"
LEGACY = "Docker allows it, the oracle does not: asynchronous I/O and pipes of ordinary programs"
KEYS = "kernel keys are not separated by namespaces; Docker refuses it as well"
POINTER = "clone3's flags are behind a pointer: refused, so that the flags of clone can be looked at"

_TIED = """
    fsconfig fsmount fsopen fspick get_mempolicy mbind mount mount_setattr move_mount open_tree pidfd_getfd pivot_root
    reboot set_mempolicy setns syslog umount umount2 unshare
"""
_NEWER = """
    cachestat fchmodat2 futex_requeue futex_wait futex_waitv futex_wake getxattrat io_pgetevents_time64 listmount
    listxattrat map_shadow_stack mseal removexattrat setxattrat statmount
"""
_NEWER_TIED = "lsm_get_self_attr lsm_list_modules lsm_set_self_attr quotactl_fd set_mempolicy_home_node"
DIFFERENCES = {
    **dict.fromkeys(_TIED.split(), (TIED, {(errno.EPERM, ALLOW)})),
    **dict.fromkeys(_NEWER.split(), (NEWER, {(ALLOW, errno.ENOSYS)})),
    **dict.fromkeys(_NEWER_TIED.split(), (NEWER_TIED, {(ALLOW, errno.ENOSYS), (errno.EPERM, errno.ENOSYS)})),
    **dict.fromkeys(("io_pgetevents", "vmsplice"), (LEGACY, {(ALLOW, errno.EPERM)})),
    "keyctl": (KEYS, {(errno.EPERM, ALLOW)}),
    "clone3": (POINTER, {(errno.ENOSYS, ALLOW)}),
}
"""Why a call's verdict is another one, and the pairs (ours, the oracle's) that there may be."""

SETS = {"usual": USUAL, "all": frozenset(NAMES), "none": frozenset(), "one": frozenset({"SYS_ADMIN"})}
NUMBERS_TRIED = (*range(1024), *range(0xF0000, 0xF0008), 0x3FFFFFFF)
"""From 0x40000000 on x86-64's are x32's, which Docker and the oracle let through and we do not: see below."""


def ours(capabilities: frozenset[str], machine: str) -> Callable[[Call], int]:
    verdicts = profile.verdicts([NUMBERS[name] for name in capabilities], machine)
    return load(compile_verdicts(verdicts, machine))


@pytest.mark.parametrize("machine", numbers.ARCHITECTURES)
@pytest.mark.parametrize("held", SETS)
def test_each_call_is_as_in_the_oracle_or_differs_for_a_reason(machine, held):
    architectures = numbers.ARCHITECTURES[machine]
    mine = ours(SETS[held], machine)
    theirs = load(seccomp_oracle.compile_profile({f"CAP_{name}" for name in SETS[held]}, machine, architectures))
    for architecture in architectures:
        named = {*profile.verdicts([], machine), *seccomp_oracle.names()}
        names = {number: name for name, number in numbers.resolve(named, architecture).items()}
        for number in NUMBERS_TRIED:
            pair = mine(Call(architecture, number)), theirs(Call(architecture, number))
            if pair[0] != pair[1]:
                _, allowed = DIFFERENCES.get(names.get(number, ""), ("", set()))
                assert pair in allowed, (hex(architecture), number, names.get(number))


def test_no_difference_is_listed_that_is_none():
    architectures = numbers.ARCHITECTURES["x86_64"]
    seen = set()
    for held in (SETS["usual"], SETS["all"]):
        mine = ours(held, "x86_64")
        theirs = load(seccomp_oracle.compile_profile({f"CAP_{name}" for name in held}, "x86_64", architectures))
        for architecture in architectures:
            for name, number in numbers.resolve(DIFFERENCES, architecture).items():
                call = Call(architecture, number)
                if mine(call) != theirs(call):
                    seen.add(name)
    assert seen == set(DIFFERENCES)


@pytest.mark.parametrize("machine", numbers.ARCHITECTURES)
def test_arguments_decide_about_clone_socket_and_personality(machine):
    mine = ours(USUAL, machine)
    high = 1 << 32  # the kernel drops the upper half of these arguments
    for architecture in numbers.ARCHITECTURES[machine]:
        number = numbers.resolve(("clone", "socket", "personality"), architecture)

        def verdict(name: str, argument: int) -> int:
            call = Call(architecture, number[name], (argument, 0, 0, 0, 0, 0))  # noqa: B023 - called in its own round
            return mine(call)

        for bit in range(32):
            expected = errno.EPERM if profile.NAMESPACE_FLAGS >> bit & 1 else ALLOW
            assert {verdict("clone", 1 << bit), verdict("clone", 1 << bit | high)} == {expected}, bit
        assert verdict("clone", 0x1200011) == ALLOW  # what fork() of glibc gives
        for family in (*range(64), 0x7FFFFFFF, 0xFFFFFFFF):
            expected = ALLOW if family in profile.FAMILIES else errno.EPERM
            assert {verdict("socket", family), verdict("socket", family | high)} == {expected}, family
        for persona in (*range(64), 0x40000, 0x20000, 0x20001, 0x20008, 0xFFFFFFFE, 0xFFFFFFFF):
            expected = ALLOW if persona in profile.PERSONALITIES else errno.EPERM
            assert {verdict("personality", persona), verdict("personality", persona | high)} == {expected}, persona


def test_personalities_are_the_oracles():
    theirs = load(seccomp_oracle.compile_profile(set(), "x86_64", numbers.ARCHITECTURES["x86_64"]))
    number = numbers.resolve(("personality",), numbers.X86_64)["personality"]
    for persona in (*range(64), 0x20000, 0x20008, 0x40000, 0xFFFFFFFF):
        call = Call(numbers.X86_64, number, (persona, 0, 0, 0, 0, 0))
        assert (theirs(call) == ALLOW) == (persona in profile.PERSONALITIES)


def test_vsock_and_the_crypto_family_are_refused():
    assert not {38, 40} & set(profile.FAMILIES)
    assert {1, 2, 10, 16, 17} <= set(profile.FAMILIES)  # unix, inet, inet6, netlink, packet


def test_a_foreign_architecture_has_no_calls():
    mine = ours(frozenset(NAMES), "x86_64")
    assert {mine(Call(numbers.AARCH64, number)) for number in range(300)} == {errno.ENOSYS}


def test_x32_is_as_on_a_kernel_without_it():
    mine = ours(frozenset(NAMES), "x86_64")
    x32 = (*range(0x40000000, 0x40000400), 0x7FFFFFFF, 0xFFFFFFFF)
    assert {mine(Call(numbers.X86_64, number)) for number in x32} == {errno.ENOSYS}
