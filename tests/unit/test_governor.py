"""Laws of the governor: every bound holds, who has the most pays, and what is proven stays."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sdn.controller.governor import OWN_DESCRIPTORS, Governor, Limits, limits_for

LIMITS = Limits(unproven=6, users=5, per_user=3, per_host=2)
SOURCES = st.sampled_from(["a", "b", "c", "d"])
NAMES = st.sampled_from(["u", "v"])


class Table(RuleBasedStateMachine):
    """The governor beside the plainest table there is."""

    def __init__(self) -> None:
        super().__init__()
        self.governor: Governor[int] = Governor(LIMITS)
        self.next = 0
        self.unproven: dict[int, str] = {}
        self.users: dict[int, str] = {}
        self.hosts: dict[int, str] = {}

    @property
    def known(self) -> list[int]:
        return [*self.unproven, *self.users, *self.hosts]

    @rule(source=SOURCES)
    def arrive(self, source):
        self.next += 1
        self.unproven[self.next] = source
        gone = self.governor.arrived(self.next, source)
        counts = {one: list(self.unproven.values()).count(one) for one in self.unproven.values()}
        too_many = counts[source] > LIMITS.per_source or len(self.unproven) > LIMITS.unproven
        assert (gone is not None) == too_many
        if gone is not None:
            greedy = self.unproven[gone]
            assert counts[greedy] == max(counts.values())
            assert gone == min(one for one, where in self.unproven.items() if where == greedy)
            del self.unproven[gone]

    @rule(data=st.data(), name=NAMES)
    def user(self, data, name):
        if self.known:
            one = data.draw(st.sampled_from(self.known))
            room = len(self.users) < LIMITS.users and list(self.users.values()).count(name) < LIMITS.per_user
            assert self.governor.user(one, name) == (room or self.users.get(one) == name)
            if room and self.users.get(one) != name:
                self._forget(one)
                self.users[one] = name

    @rule(data=st.data(), name=NAMES)
    def host(self, data, name):
        if self.known:
            one = data.draw(st.sampled_from(self.known))
            gone = self.governor.host(one, name)
            if self.hosts.get(one) != name:
                self._forget(one)
                self.hosts[one] = name
            mine = [each for each, whose in self.hosts.items() if whose == name]
            assert gone == (mine[0] if len(mine) > LIMITS.per_host else None)
            if gone is not None:
                del self.hosts[gone]

    @rule(one=st.integers(0, 40))
    def leave(self, one):
        self.governor.left(one)
        self._forget(one)

    def _forget(self, one):
        for table in (self.unproven, self.users, self.hosts):
            table.pop(one, None)

    @invariant()
    def counts(self):
        found = (self.governor.unproven, self.governor.users, self.governor.hosts)
        assert found == (len(self.unproven), len(self.users), len(self.hosts))


TestTable = Table.TestCase


def test_who_opens_thousands_displaces_his_own():
    governor: Governor[str] = Governor(Limits(unproven=100))
    for number in range(30):
        assert governor.arrived(f"honest {number}", f"10.0.0.{number}") is None
    gone = [governor.arrived(f"greedy {number}", "192.0.2.1") for number in range(10_000)]
    assert all(one is None or one.startswith("greedy") for one in gone)
    assert governor.arrived("late", "10.0.1.1") is None
    assert governor.unproven == 30 + 50 + 1


def test_nothing_is_there_to_displace():
    assert Governor[int](Limits()).displaced() is None


@given(st.integers(80, 1 << 20))
def test_half_of_the_descriptors_are_for_streams(descriptors):
    limits = limits_for(descriptors)
    taken = limits.unproven + limits.users + limits.local
    assert taken <= (descriptors - OWN_DESCRIPTORS) / 2
    assert min(limits.unproven, limits.users, limits.per_user, limits.local) > 0
