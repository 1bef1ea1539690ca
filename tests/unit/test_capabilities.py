"""Capabilities by name, and what a container is given."""

from __future__ import annotations

import subprocess

import pytest

from runtime.capabilities import NAMES, NUMBERS, USUAL, parse, read_bounding, resolve
from sdn.model.errors import HawseError, Kind

EVERYTHING = frozenset(range(len(NAMES)))


def numbers(*names: str) -> list[int]:
    return sorted(NUMBERS[name] for name in names)


def test_the_table_is_the_kernels():
    assert NUMBERS["CHOWN"] == 0
    assert NUMBERS["SYS_ADMIN"] == 21
    assert NUMBERS["CHECKPOINT_RESTORE"] == 40
    assert len(NAMES) == len(set(NAMES)) == 41


def test_the_table_is_setprivs():
    listed = subprocess.run(["setpriv", "--list-caps"], capture_output=True, text=True, check=True).stdout.split()
    assert [name.upper() for name in listed if not name.startswith("cap_")] == list(NAMES)[: len(listed)]


def test_the_usual_set_is_dockers_fourteen():
    assert len(USUAL) == 14
    assert resolve([], [], EVERYTHING) == [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31]


@pytest.mark.parametrize("text", ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_Net_Admin", " NET_ADMIN "])
def test_a_name_is_read_in_any_case_with_or_without_prefix(text):
    assert parse(text) == "NET_ADMIN"


def test_added_dropped_all():
    assert resolve(["net_admin"], ["CAP_CHOWN"], EVERYTHING) == sorted(
        {*numbers(*USUAL), NUMBERS["NET_ADMIN"]} - {NUMBERS["CHOWN"]}
    )
    assert resolve(["ALL"], [], EVERYTHING) == sorted(EVERYTHING)
    assert resolve(["all"], ["SYS_ADMIN"], EVERYTHING) == sorted(EVERYTHING - {21})
    assert resolve([], ["ALL"], EVERYTHING) == []
    assert resolve(["KILL"], ["all"], EVERYTHING) == numbers("KILL")
    assert resolve(["CHOWN"], ["CHOWN"], EVERYTHING) == numbers(*USUAL)
    assert resolve(["CHOWN"], [], EVERYTHING) == numbers(*USUAL)


def test_what_this_process_lacks_is_refused_if_wished_and_left_out_if_usual():
    bounding = EVERYTHING - {NUMBERS["SYS_RESOURCE"], NUMBERS["MKNOD"]}
    with pytest.raises(HawseError, match="CAP_SYS_RESOURCE: the runtime itself does not have it") as caught:
        resolve(["SYS_RESOURCE"], [], bounding)
    assert caught.value.kind is Kind.DENIED
    assert resolve([], [], bounding) == numbers(*USUAL - {"MKNOD"})
    assert resolve(["ALL"], [], bounding) == sorted(bounding)


def test_what_there_is_not_is_refused_with_the_nearest():
    with pytest.raises(HawseError, match="no capability 'CAP_NET_ADMN'; did you mean CAP_NET_ADMIN") as caught:
        resolve(["CAP_NET_ADMN"], [], EVERYTHING)
    assert caught.value.kind is Kind.INVALID
    with pytest.raises(HawseError, match="capabilities"):
        resolve([], ["xyzzy"], EVERYTHING)
    with pytest.raises(HawseError, match="both added and dropped"):
        resolve(["ALL"], ["ALL"], EVERYTHING)


def test_the_bounding_set_is_this_processs():
    text = subprocess.run(["setpriv", "--dump"], capture_output=True, text=True, check=True).stdout
    line = next(line for line in text.splitlines() if line.startswith("Capability bounding set:"))
    named = {name.strip().upper() for name in line.partition(":")[2].split(",")} - {"[NONE]"}
    assert {NAMES[number] for number in read_bounding() if number < len(NAMES)} == named & set(NAMES)
