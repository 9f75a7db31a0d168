"""npm packages for tests of clients and servers written in JavaScript."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest


def install(project: Path) -> Path:
    """Install what a project's lock file names, into a directory that git ignores; gives that directory."""
    if _is_missing(project):
        subprocess.run(["npm", "ci", "--silent"], cwd=project, check=True, timeout=180)  # noqa: S607  # from the PATH
    return project / "node_modules"


def install_scripts(project: Path) -> Path:
    """As `install`, without declarations of types and what packages do when they are installed.

    For a package of 23,000 files: `npm ci` takes 15 s of CPU to unpack it, tar one.

    Raises:
        AssertionError: a package is not what the lock file says.
    """
    if _is_missing(project):
        lock = project / "package-lock.json"
        locked = {path: entry for path, entry in json.loads(lock.read_text())["packages"].items() if path}
        with TemporaryDirectory() as tarballs:
            packed = _pack({_spec(path, entry) for path, entry in locked.items()}, Path(tarballs))
            for path, entry in locked.items():
                told = packed[_spec(path, entry)]
                assert told["integrity"] == entry["integrity"], path
                # Some npm tell another name for a package with a scope than they give its file.
                name = told["filename"].removeprefix("@").replace("/", "-")
                _unpack(Path(tarballs, name), project / path)
        shutil.copy(lock, project / "node_modules" / ".package-lock.json")
    return project / "node_modules"


def _spec(path: str, entry: dict[str, Any]) -> str:
    return f"{path.rpartition('node_modules/')[2]}@{entry['version']}"


def _pack(specs: set[str], directory: Path) -> dict[str, dict[str, Any]]:
    """Fetch tarballs; what npm tells of each."""
    command = ["npm", "pack", "--json", "--pack-destination", str(directory), *sorted(specs)]
    told = subprocess.run(command, check=True, timeout=180, capture_output=True)
    return {f"{each['name']}@{each['version']}": each for each in json.loads(told.stdout)}


def _is_missing(project: Path) -> bool:
    """Whether there is something to install; without npm a skip, but a failure where ``CI`` is set."""
    if shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("no npm on this machine")
        pytest.skip("no npm on this machine")
    lock, installed = project / "package-lock.json", project / "node_modules" / ".package-lock.json"
    return not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime


def _unpack(tarball: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    unpack = ["tar", "-xzf", str(tarball), "-C", str(target), "--strip-components=1", "--exclude=*.d.ts"]
    subprocess.run(unpack, check=True, timeout=60)
