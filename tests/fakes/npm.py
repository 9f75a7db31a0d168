"""npm packages for tests of clients and servers written in JavaScript."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def install(project: Path) -> Path:
    """Install what a project's lock file names, into a directory that git ignores; gives that directory."""
    if shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("no npm on this machine")
        pytest.skip("no npm on this machine")
    modules, lock = project / "node_modules", project / "package-lock.json"
    installed = modules / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run(["npm", "ci", "--silent"], cwd=project, check=True, timeout=180)  # noqa: S607  # from the PATH
    return modules
