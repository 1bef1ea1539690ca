"""A session of tests leaves nothing behind, however it ends: `session_janitor` sees to it, and tells of faults."""

from __future__ import annotations

import signal

import hypothesis
import pytest

from tests.session_janitor import KEPT, Janitor

hypothesis.settings.register_profile("hawse", deadline=None)  # no test asserts a time
hypothesis.settings.load_profile("hawse")

_JANITOR = pytest.StashKey[Janitor]()
_LEFT = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before anything makes a temporary file."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job, which its children would inherit
        signal.signal(signal.SIGINT, signal.default_int_handler)
    janitor = config.stash[_JANITOR] = Janitor()
    config.option.basetemp = config.option.basetemp or str(janitor.directory / KEPT)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """After the last fixture: whatever is there now, nobody would have removed."""
    left = session.config.stash[_LEFT] = session.config.stash[_JANITOR].end()
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """In red, each on a line."""
    left = config.stash.get(_LEFT, [])
    if left:
        terminalreporter.section("left behind by the tests, removed now", red=True)
        terminalreporter.write_line("\n".join(left))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Where there was no session (`--help`)."""
    config.stash[_JANITOR].end()
