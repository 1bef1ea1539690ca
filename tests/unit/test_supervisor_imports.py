"""What the supervisor is made of: the standard library, and of that what it needs. Its memory is measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = {
    "typing",
    "dataclasses",
    "asyncio",
    "logging",
    "msgspec",
    "inspect",
    "subprocess",
    "threading",
    "tempfile",
    "site",
}


def test_it_imports_no_more_than_it_needs():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import runtime.supervisor.main;"
        "print(*sorted(sys.modules)); print(*(getattr(m, '__file__', '') for m in list(sys.modules.values())))"
    )
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    names, files = run.stdout.splitlines()
    modules = set(names.split())
    assert not HEAVY & modules
    ours = {name for name in modules if name.startswith("sdn.")} - {"sdn.service", "sdn.model"}
    assert ours == {"sdn.service.container_log", "sdn.service.framing", "sdn.model.version"}
    assert not [name for name in modules if name.startswith(("runtime.daemon", "runtime.image"))]
    assert "runtime.plan" not in modules
    assert "site-packages" not in files
