"""What daemons leave out at import is back afterwards."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

from sdn.service.startup import lean_imports


def test_everything_is_back_afterwards(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/some/bundle")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with lean_imports():
        assert os.environ["SSL_CERT_FILE"] == os.devnull
    assert os.environ["SSL_CERT_FILE"] == "/some/bundle"
    assert "SSL_CERT_DIR" not in os.environ
    assert importlib.import_module("rich").__name__ == "rich"


def test_daemons_import_neither_rich_nor_test_libraries():
    """A daemon's resident memory is decided by what it imports."""
    code = (
        "import sys; from plugin.agent import main, core, stream\n"
        "from plugin.datapath.bridge import datapath; from plugin.datapath.openflow import datapath\n"
        "unwanted = ('rich', 'pyroute2', 'netaddr', 'scapy', 'yaml', 'os_ken', 'ovs')\n"
        "print([name for name in unwanted if sys.modules.get(name)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
