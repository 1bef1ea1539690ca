"""The default profile: the calls that ordinary programs make, and what each capability adds.

It allows what Docker's default profile allows; where it differs from another well-known one (containers-common's), the
test that compares the two names each difference with its reason.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from runtime.capabilities import NAMES


class OneOf(NamedTuple):
    """Allowed where the first argument, as 32 bits, is one of `values`; else EPERM."""

    values: tuple[int, ...]


class Without(NamedTuple):
    """Allowed where the first argument, as 32 bits, has none of the bits `flags`; else EPERM."""

    flags: int


Verdict = int | OneOf | Without
"""What becomes of a call: 0 is allowed, another number is the errno it gives, and some depend on an argument.

32 bits, since the kernel drops the upper half of just these arguments: to compare it would be to be walked around.
"""

ALLOW = 0
OTHERWISE = errno.ENOSYS
"""The errno of every call that the profile does not name."""

ALLOWED = """
    _llseek access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync
    flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64
    ioctl lchown lchown32 link linkat lseek lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open
    openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readdir readlink
    readlinkat readv rename renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 statx
    symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat
    utimensat_time64 utimes vmsplice write writev cachestat listmount statmount

    fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr
    lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat

    brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect
    mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages

    execve execveat exit exit_group fork getpgid getpgrp getpid getppid getpriority getrlimit getrusage getsid gettid
    ioprio_get ioprio_set kill pause pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease process_vm_readv
    process_vm_writev ptrace rseq setpgid setpriority setrlimit setsid set_tid_address tgkill times tkill ugetrlimit
    vfork wait4 waitid waitpid
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield

    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list get_thread_area set_robust_list
    set_thread_area

    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32
    getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
    setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32
    landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp

    restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask
    sigreturn sigsuspend uretprobe

    _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch poll ppoll ppoll_time64
    pselect6 pselect6_time64 select
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit

    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg
    send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair

    ipc msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink

    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64

    getcpu getrandom sysinfo uname
"""
"""Files; their attributes; memory; processes; scheduling; locks; identity; signals; events; sockets; IPC; time."""

MACHINE = {
    "x86_64": "arch_prctl modify_ldt",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
}
"""What only an architecture has (with its 32-bit relative)."""

BY_CAPABILITY = {
    "BPF": "bpf",
    "DAC_READ_SEARCH": "open_by_handle_at",
    "PERFMON": "perf_event_open",
    "SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
        lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open pivot_root quotactl
        quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
    """,
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "delete_module finit_module init_module query_module",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "SYS_RAWIO": "ioperm iopl",
    "SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "SYS_TTY_CONFIG": "vhangup",
    "SYSLOG": "syslog",
}

REFUSED = """
    bdflush kexec_file_load kexec_load keyctl migrate_pages move_pages nfsservctl nice oldfstat oldlstat
    oldolduname oldstat olduname pciconfig_iobase pciconfig_read pciconfig_write sgetmask ssetmask swapoff
    swapon sysfs uselib userfaultfd ustat vm86 vm86old
"""
"""Never allowed, and old enough to be known: EPERM. Keys are not separated by namespaces; the rest is obsolete or
changes the whole machine."""

PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, Linux32, each with UNAME26; and the question what it is. Others weaken ASLR."""

NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

FAMILIES = (*range(12), *range(13, 19), 21, 22, 24, *range(26, 34), 35, 36, 39, *range(41, 46))
"""Address families of socket(2). Not AF_VSOCK (40: it reaches the hypervisor past every namespace), not AF_ALG (38: it
lets anybody at the kernel's crypto drivers), nor those that are dead or yet to come."""


def verdicts(capabilities: Iterable[int], machine: str) -> Mapping[str, Verdict]:
    """The verdict for each call by name, for a container with these capabilities (numbers) on `machine` (uname(2)).

    What is not named gives OTHERWISE.
    """
    held = {NAMES[number] for number in capabilities if number < len(NAMES)}
    found: dict[str, Verdict] = dict.fromkeys(REFUSED.split(), errno.EPERM)
    for names in BY_CAPABILITY.values():
        found.update(dict.fromkeys(names.split(), errno.EPERM))
    found |= {
        "clone": Without(NAMESPACE_FLAGS),
        "clone3": errno.ENOSYS,  # its flags are behind a pointer: libraries fall back to clone
        "personality": OneOf(PERSONALITIES),
        "socket": OneOf(FAMILIES),
    }
    allowed = [ALLOWED, MACHINE[machine], *(names for name, names in BY_CAPABILITY.items() if name in held)]
    for names in allowed:
        found.update(dict.fromkeys(names.split(), ALLOW))
    return found
