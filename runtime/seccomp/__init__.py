"""The seccomp filter: which system calls a container's processes may make.

Purpose. Everything in a container shares one kernel; most of that kernel's calls no ordinary program makes. The filter
lets through what programs need and refuses the rest, so that a flaw in a rarely used corner cannot be reached.

Vocabulary. The *profile* gives each call a *verdict* by name (`profile`): allowed, an errno, or a look at its first
argument; capabilities that a container has allow further calls. libseccomp knows the *numbers* of the names
(`numbers`), for the machine's architecture and its 32-bit relative. The *program* (`program`) is classic BPF, and a
*filter* is its file, made once for each set of capabilities and cached by what it was made from (`filters`).

One walk. The daemon resolves a container's capabilities, asks `filters.compiled(directory, capabilities)` for the file
and writes its path into the launch plan. The supervisor's child reads it and installs it as its last act before execve,
with seccomp(2) alone: neither it nor the supervisor ever loads libseccomp.

Refusals. A call that the profile knows gives EPERM, which programs report. One that it does not know (of a newer
kernel) gives ENOSYS, to which libraries have a fallback. clone3 gives ENOSYS without CAP_SYS_ADMIN: its flags are
behind a pointer that no filter can follow, and libraries then use clone, whose namespace flags are looked at.

Why not libseccomp's compiler: it spends a node on each call, ours one on each range of calls with the same verdict.
That is 270 instructions and not 980, and the kernel loads them for each container that starts: less than half the time
(244 µs and 533, interleaved; libseccomp's with its binary tree). The tests compile a profile with it and compare.

Limits. x86-64 and aarch64. x32 has no calls. On 32-bit x86 `socketcall` takes its arguments through a pointer, too: the
rule about address families does not hold there.
"""
