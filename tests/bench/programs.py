"""The tiny static programs that rows run in containers, the same ones in ours and in the peers'; and a tree of them."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from tests.bench.measure import PeerMissingError

BUSYBOX = Path("/usr/bin/busybox")

HEAD = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
static struct timespec now;
static int tell(void) {
    char text[32];
    int length = snprintf(text, sizeof text, "%lld\n", (long long)now.tv_sec * 1000000000 + now.tv_nsec);
    return write(1, text, length) != length;
}
"""
CLOCK = """
int main(void) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    return tell();
}
"""
IDLE = """
int main(void) {
    for (;;) pause();
}
"""
FIRST_PING = r"""
/* An echo request every millisecond to argv[1], until one is answered; then the clock. */
int main(int count, char **words) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    struct icmphdr echo = {.type = ICMP_ECHO, .un.echo.id = 0x4857};
    unsigned char reply[256];
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    if (count < 2 || fd < 0 || inet_pton(AF_INET, words[1], &to.sin_addr) != 1) return 2;
    echo.checksum = ~(unsigned short)(ICMP_ECHO + 0x4857);
    for (int i = 0; i < 20000; i++) {
        sendto(fd, &echo, sizeof echo, 0, (struct sockaddr *)&to, sizeof to);
        struct pollfd ready = {fd, POLLIN, 0};
        while (poll(&ready, 1, 1) > 0) {
            int length = recv(fd, reply, sizeof reply, 0);
            struct iphdr *ip = (struct iphdr *)reply;
            if (length >= 28 && reply[ip->ihl * 4] == ICMP_ECHOREPLY && ip->saddr == to.sin_addr.s_addr) {
                clock_gettime(CLOCK_MONOTONIC, &now);
                return tell();
            }
        }
    }
    return 1;
}
"""
PROGRAMS = {"clock": CLOCK, "idle": IDLE, "first-ping": FIRST_PING}
APPLETS = ("sh", "true", "sleep", "cat", "ip", "ping")
DIRECTORIES = ("bin", "dev", "etc", "proc", "sys", "tmp", "root")


def make_tree(directory: Path) -> Path:
    """A root tree: static busybox with a few applets, and the programs in `/bin`. Raises: PeerMissingError (no gcc)."""
    if not BUSYBOX.exists():
        raise PeerMissingError(f"there is no {BUSYBOX} (Debian: busybox-static)")
    for name in DIRECTORIES:
        (directory / name).mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\n")
    (directory / "bin/busybox").write_bytes(BUSYBOX.read_bytes())
    (directory / "bin/busybox").chmod(0o755)
    for applet in APPLETS:
        (directory / "bin" / applet).symlink_to("busybox")
    for name, text in PROGRAMS.items():
        command = ["gcc", "-O2", "-static", "-x", "c", "-", "-o", str(directory / "bin" / name)]
        try:
            subprocess.run(command, input=(HEAD + text).encode(), check=True, capture_output=True)
        except FileNotFoundError:
            raise PeerMissingError("there is no gcc, and the program that both sides run is made by it") from None
        except subprocess.CalledProcessError as error:
            raise PeerMissingError(f"gcc cannot make a static program: {error.stderr.decode()}") from None
    return directory


def archive(tree: Path) -> bytes:
    """The tree as a tar archive, owned by root."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.add(tree, arcname=".")
    return made.getvalue()
