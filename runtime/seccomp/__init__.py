"""The seccomp filter: which system calls a container's processes may make.

Purpose. Everything in a container shares one kernel; most of that kernel's calls no ordinary program makes. The filter
lets through what programs need and refuses the rest, so that a flaw in a rarely used corner cannot be reached.

Vocabulary. A *profile* is the list of calls by name, in groups (`profile`); capabilities that a container has open
further groups. A *rule* says ALLOW or ERRNO for some names, possibly for certain arguments alone. A *filter* is the
classic BPF program that libseccomp compiles of the rules (`libseccomp`, `filters`), for the machine's architecture and
its 32-bit relatives; it is a file, made once for each set of capabilities and cached by what it was made from.

One walk. The daemon resolves a container's capabilities, asks `filters.compiled(directory, capabilities)` for the file
and writes its path into the launch plan. The supervisor's child reads it and installs it as its last act before execve,
with seccomp(2) alone: neither it nor the supervisor ever loads libseccomp.

Refusals. A call that the profile knows gives EPERM, which programs report. One that it does not know (of a newer
kernel) gives ENOSYS, to which libraries have a fallback. clone3 gives ENOSYS without CAP_SYS_ADMIN: its flags are
behind a pointer that no filter can follow, and libraries then use clone, whose namespace flags are looked at.

Limits. x86-64 and aarch64. On 32-bit x86 `socketcall` takes its arguments through a pointer, too: the rule about
address families does not hold there. Calls newer than libseccomp are known by number (`profile.RECENT`), natively only.
"""
