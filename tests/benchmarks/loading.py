"""What the plugin costs a run of pytest that does not use it.

Two directories stand for two virtual environments, each with pytest, what pytest needs, and one plugin as pip installs
a wheel: ours, or one of as many files that are all empty.  Number and names of the files count, since pytest looks
through the list of files of each plugin.  Runs of both take turns, each in a process of its own that measures from
within; the best of each counts, since whatever else happens to a process only adds to it.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import pytest_sockserver
from measure import Effort, Measured

#: Pairs of processes.
ROUNDS = 25

#: Runs inside: the time that pytest spends with plugins that are installed, in milliseconds.
PROBE = """
import sys
from time import perf_counter
sys.path.insert(0, sys.argv[1])
from _pytest.config import Config, PytestPluginManager
spent = {}
def clocked(owner, name):
    usual = getattr(owner, name)
    def measured(*args, **kwargs):
        began = perf_counter()
        try:
            return usual(*args, **kwargs)
        finally:
            spent[name] = spent.get(name, 0.0) + perf_counter() - began
    setattr(owner, name, measured)
clocked(PytestPluginManager, "load_setuptools_entrypoints")
clocked(Config, "_mark_plugins_for_rewrite")
import pytest
status = pytest.main(["-q", "-p", "no:cacheprovider", "--collect-only", sys.argv[2]])
assert status == 5, status
assert len(spent) == 2, spent
print("spent", 1e3 * sum(spent.values()))
"""


def against_empty_plugin(effort: Effort) -> Measured:
    """Return the milliseconds that ours takes longer."""
    with tempfile.TemporaryDirectory(prefix="sockserver-benchmark-") as name:
        root = Path(name)
        nothing = root / "nothing"
        nothing.mkdir()
        ours, empty = root / "ours", root / "empty"
        for site in (ours, empty):
            _install_pytest(site)
        _install_plugin(ours, "pytest_sockserver", empty=False)
        _install_plugin(empty, "pytest_emptyplugin", empty=True)
        _spent(ours, nothing), _spent(empty, nothing)  # pytest caches the modules that it rewrites
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(effort.count(ROUNDS, least=3)):
            times[0].append(_spent(ours, nothing))
            times[1].append(_spent(empty, nothing))
    half = (len(times[0]) + 1) // 2
    halves = [min(times[0][part]) - min(times[1][part]) for part in (slice(half), slice(half, None))]
    best = min(times[0]), min(times[1])
    return Measured(
        best[0] - best[1],
        min(halves),
        max(halves),
        f"{best[0]:.2f} ms : {best[1]:.2f} ms, the best of {len(times[0])}",
    )


def _spent(site: Path, nothing: Path) -> float:
    """Run pytest once; return the milliseconds that it spent with plugins that are installed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    # -S: nothing is importable but the standard library and what is in the directory.
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROBE, str(site), str(nothing)],
        cwd=nothing,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("spent ")]
    if done.returncode or not lines:
        raise RuntimeError(f"pytest could not be run:\n{done.stdout}{done.stderr}")
    return float(lines[0][1])


def _install_pytest(site: Path) -> None:
    """Copy pytest and what it needs out of the environment that runs this."""
    wanted, seen = ["pytest"], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # needed on another platform, or by an extra
        wanted += [_name_of(need) for need in installed.requires or () if "extra ==" not in need]
        for file in installed.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file.locate(), target)
    compileall.compile_dir(site, quiet=2)


def _name_of(requirement: str) -> str:
    for end, character in enumerate(requirement):
        if not (character.isalnum() or character in "-_."):
            return requirement[:end]
    return requirement


def _install_plugin(site: Path, package: str, *, empty: bool) -> None:
    """Lay a plugin out as pip does: the files, their compiled form, and the list of all of them."""
    source = Path(pytest_sockserver.__file__).parent
    for path in sorted(source.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            target = site / package / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"" if empty else path.read_bytes())
    compileall.compile_dir(site / package, quiet=2)
    name = package.replace("_", "-")
    info = site / f"{package}-{pytest_sockserver.__version__}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {pytest_sockserver.__version__}\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nGenerator: benchmark\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    (info / "entry_points.txt").write_text(f"[pytest11]\nplugin = {package}.pytest_plugin.plugin\n")
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text("")
    files = [path for top in (site / package, info) for path in sorted(top.rglob("*")) if path.is_file()]
    (info / "RECORD").write_text("".join(f"{path.relative_to(site).as_posix()},,\n" for path in files))
