"""The machine itself as an image: its programs, and nothing that is nobody's business."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from runtime.image.host import HOST_ID, HostImage
from runtime.image.store import ImageStore

pytestmark = pytest.mark.root

UNSEEN = [
    "etc/shadow", "etc/shadow-", "etc/gshadow", "etc/sudoers", "etc/sudoers.d", "etc/ssh", "etc/ssl/private",
    "etc/machine-id", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/fstab", "etc/crontab", "etc/NetworkManager",
    "etc/hawse", "etc/docker", "etc/krb5.keytab", "etc/security/opasswd", "etc/apt", "etc/systemd",
]  # fmt: skip
EMPTY = ["root", "home", "run", "srv", "mnt", "opt", "tmp", "proc", "sys", "dev", "var/lib", "var/log", "var/tmp"]
FOUND = ["usr", "etc/passwd", "etc/group", "etc/nsswitch.conf"]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def test_what_is_nobodys_business_is_not_there(store):
    (tree,) = store.resolve("host").layers
    assert [path for path in UNSEEN if os.path.lexists(tree / path)] == []
    assert [path for path in EMPTY if os.listdir(tree / path)] == []
    assert [path for path in FOUND if not (tree / path).exists()] == []
    assert (tree / "etc/passwd").read_text().count("\n") == 2
    assert sorted(os.listdir(tree))[:3] == ["bin", "dev", "etc"]
    assert not {"boot", "work", "media", "lost+found"} & set(os.listdir(tree))


def test_nothing_in_it_is_anything_but_plain_and_for_anybody(store):
    (tree,) = store.resolve("host").layers
    for directory, names, files in os.walk(tree):
        for name in names + files:
            mode = os.lstat(os.path.join(directory, name)).st_mode
            assert stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
            assert not (stat.S_ISREG(mode) and mode & 0o7022)
    assert (tree / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_its_programs_run(store, tmp_path):
    image = store.resolve("host:latest")
    root = tmp_path / "root"
    script = "mount -t overlay -o lowerdir=$0:$1 overlay $2\nshift 2\n"
    (tmp_path / "nothing").mkdir()
    root.mkdir()
    for source, target in image.binds:
        script += f"mount --bind {source} {root}{target} && mount -o remount,bind,ro {root}{target}\n"
    script += f"chroot {root} /bin/sh -c 'ls /usr/bin/env /etc/ld.so.cache; id -un; id -un 65534; touch /usr/x'"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(image.layers[0]), str(tmp_path / "nothing"), str(root)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["/etc/ld.so.cache", "/usr/bin/env", "root", "nobody"]
    assert "Read-only file system" in done.stderr


def machine(top: Path) -> Path:
    """A machine of a test's own."""
    for name, text in {"etc/shadow": "secret", "etc/ld.so.cache": "1", "etc/profile": "p", "bin/sh": ""}.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    (top / "etc/profile").chmod(0o600)
    for name in ("usr/lib", "etc/ssl/certs", "etc/alternatives"):
        (top / name).mkdir(parents=True)
    (top / "lib").symlink_to("usr/lib")
    (top / "etc/ssl/certs/key.pem").write_text("only for root")
    (top / "etc/ssl/certs/key.pem").chmod(0o640)
    (top / "etc/ssl/certs/ca-certificates.crt").write_text("for all")
    (top / "etc/python3").mkdir()
    (top / "etc/python3/conf").write_text("for all")
    (top / "etc/python3/secret").write_text("for root")
    (top / "etc/python3/secret").chmod(0o640)
    os.mkfifo(top / "etc/python3/fifo")
    (top / "etc/alternatives/vi").symlink_to("/usr/bin/vim")
    (top / "etc/alternatives/README").write_text("for all")
    return top


def test_only_what_anybody_may_read_and_links_of_an_unmerged_machine(tmp_path):
    host = HostImage(tmp_path / "host", machine(tmp_path / "machine"))
    tree = host.layer()
    assert os.listdir(tree / "etc/ssl/certs") == ["ca-certificates.crt"]
    assert os.listdir(tree / "etc/python3") == ["conf"]
    assert not (tree / "etc/profile").exists()
    assert os.readlink(tree / "lib") == "usr/lib"
    assert [target for _, target in host.binds()] == ["/usr", "/bin", "/etc/alternatives"]
    assert [os.listdir(tree / name) for name in ("bin", "etc/alternatives")] == [[], []]
    assert "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt" in host.config["Env"]


def test_alternatives_that_are_not_for_everybody_are_not_bound(tmp_path):
    top = machine(tmp_path / "machine")
    host = HostImage(tmp_path / "host", top)
    first = host.layer()
    (top / "etc/alternatives/secret").touch(0o600)
    host.refresh()
    assert host.layer() != first
    assert "/etc/alternatives" not in [target for _, target in host.binds()]
    assert os.readlink(host.layer() / "etc/alternatives/vi") == "/usr/bin/vim"
    assert not (host.layer() / "etc/alternatives/secret").exists()


def test_it_is_made_anew_when_the_machine_changed_and_only_then(tmp_path):
    top = machine(tmp_path / "machine")
    (tmp_path / "host").mkdir()
    host = HostImage(tmp_path / "host", top)
    first = host.layer()
    assert host.refresh() == []
    assert host.layer() == first
    (top / "etc/ld.so.cache").write_text("another")
    assert host.refresh() == []  # containers of this boot may be mounted over the first
    assert host.layer() != first
    assert (host.layer() / "etc/ld.so.cache").read_text() == "another"
    assert (first / "etc/ld.so.cache").read_text() == "1"
    (first.parent / "boot").write_text("an earlier boot")
    assert host.refresh() == [first.parent]


def test_it_has_one_id_whatever_is_installed(store):
    assert store.find("host") == store.find("host:latest") == store.find(HOST_ID) == HOST_ID
    info = store.inspect("host")
    assert (info.names, info.config["Cmd"]) == (("host:latest",), ["/bin/sh"])
