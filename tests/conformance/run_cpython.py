#!/usr/bin/env python3
"""Run CPython's own tests with our module in ``socketserver``'s place, and without: what passed must pass.

    python tests/conformance/run_cpython.py             # the six that tell the most
    python tests/conformance/run_cpython.py --all       # all fourteen that reach socketserver
    python tests/conformance/run_cpython.py -m other.module --path DIR test_docxmlrpc

The interpreter that runs this runs the tests, each module in a process of its own, in an empty directory, under a
time limit, and without a way to connect anywhere but to this machine.  Nothing but the standard library is needed.
Exit status: 0 no new failure (or nothing to run), 1 new failures, 3 with --require: this interpreter ships no tests.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest
from collections import Counter
from pathlib import Path

OURS = "pytest_sockserver.socketserver"
ROOT = Path(__file__).resolve().parents[2]
QUICK = "test_socketserver test_httpservers test_docxmlrpc test_wsgiref test_urllib2_localnet test_asyncio.test_streams"
REST = (
    "test_xmlrpc test_logging test_imaplib test_robotparser test_httplib test_pydoc test_ssl test_asyncio.test_events"
)

# Names and numbers of this machine; "" and the wildcards mean it too, as does an AF_UNIX path, which is no tuple.
LOOPBACK = r"|localhost|(::ffff:)?127\.[\d.]+|0\.0\.0\.0|::1?|<broadcast>"

SHOWN = 20  # failures of one test module; the others are only counted

# Resources of CPython's test.support that stay on this machine.  "network" is the internet, but for
# test_socketserver, which asks for it to use the loopback interface.
RESOURCES = ["cpu", "subprocess", "walltime"]
NETWORK_IS_LOOPBACK = {"test_socketserver"}


def swap(name: str) -> None:
    """In the child: make the module *name* what ``import socketserver`` finds.

    Its classes say that they come from there: pickles, reprs and test_socketserver's test of __all__ depend on it.
    """
    module = importlib.import_module(name)
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__.partition(".")[0] == name.partition(".")[0]:
            value.__module__ = "socketserver"
    sys.modules["socketserver"] = module


def refuse_other_machines(event: str, args: tuple) -> None:
    """An audit hook: whoever connects or sends to another machine gets the error of one without a network."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = args[1][0] if isinstance(args[1], tuple) else ""
        if isinstance(host, str) and not re.fullmatch(LOOPBACK, host):
            raise OSError(errno.ENETUNREACH, "Network is unreachable")


class Outcomes(unittest.TextTestResult):
    """Write each test's outcome down at once: what a crash leaves untold is missing, the rest is not."""

    path = ""

    def note(self, test: unittest.TestCase, outcome: str) -> None:
        test = getattr(test, "test_case", test)  # of a subtest
        with open(self.path, "a") as file:
            file.write(json.dumps([test.id(), outcome]) + "\n")

    def addSuccess(self, test):
        self.note(test, "passed")

    def addSkip(self, test, reason):
        self.note(test, "skipped")

    def addError(self, test, err):
        super().addError(test, err)
        self.note(test, "failed")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note(test, "failed")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note(test, "failed")


def run_in_this_process(test_module: str, result: str, replacement: str | None) -> None:
    if replacement is not None:
        swap(replacement)
    sys.addaudithook(refuse_other_machines)
    from test import support

    names = RESOURCES + (["network"] if test_module.partition(".")[0] in NETWORK_IS_LOOPBACK else [])
    support.use_resources = dict.fromkeys(names) if sys.version_info >= (3, 14) else names
    Outcomes.path = result
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName(f"test.{test_module}")
    except unittest.SkipTest as skipped:
        print(skipped)
    else:
        unittest.TextTestRunner(resultclass=Outcomes, verbosity=2).run(suite)
    if replacement is not None and sys.modules["socketserver"] is not sys.modules[replacement]:
        sys.exit(f"{replacement} has not stayed in socketserver's place")
    os._exit(0)  # without waiting for threads that a test has left


def run_in_child(test_module: str, replacement: str | None, options: argparse.Namespace) -> tuple[dict[str, str], str]:
    """In the parent: run one test module; return each test's outcome, and the process's own trouble, if any."""
    with tempfile.TemporaryDirectory(prefix="cpython-", ignore_cleanup_errors=True) as folder:
        cwd, result, log = (os.path.join(folder, name) for name in ("cwd", "result", "log"))
        os.mkdir(cwd)
        command = [sys.executable, "-u", __file__, "--child", result, test_module]
        command += ["-m", replacement] if replacement is not None else []
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(options.path)}
        trouble = ""
        with open(log, "wb") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(command, cwd=cwd, env=environment, start_new_session=True, **streams)
            try:
                if process.wait(options.time_limit):
                    trouble = f"exit status {process.returncode}"
            except subprocess.TimeoutExpired:
                trouble = f"not done after {options.time_limit:g} s"
            finally:
                if process.poll() is None:
                    end_session(process)
        text = Path(log).read_text(errors="replace")
        print(text if options.verbose else "", end="")
        if trouble:
            trouble += f": {(text.strip().splitlines() or ['no output'])[-1]}"
        lines = Path(result).read_text().splitlines() if os.path.exists(result) else []
        return dict(json.loads(line) for line in lines), trouble


def end_session(process: subprocess.Popen) -> None:
    """End the child and what it has started: the session is its own."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def compare(test_module: str, options: argparse.Namespace) -> bool:
    """Run a test module both ways and report; return whether nothing has got worse."""
    baseline, baseline_trouble = run_in_child(test_module, None, options)
    ours, trouble = run_in_child(test_module, options.module, options)
    worse = {test: ours.get(test, "missing") for test, was in baseline.items() if was == "passed"}
    worse = {test: now for test, now in worse.items() if now != "passed"}
    bad = bool(worse or trouble or baseline_trouble)
    print(f"{'FAIL' if bad else 'ok  '} {test_module:25} {counts(ours)}; baseline: {counts(baseline)}", flush=True)
    for test, now in list(worse.items())[:SHOWN]:
        print(f"     {test}: {now}, passes on the baseline")
    if len(worse) > SHOWN:
        print(f"     and {len(worse) - SHOWN} more")
    for side, what in ("ours", trouble), ("baseline", baseline_trouble):
        if what:
            print(f"     {side}: {what}")
    return not bad


def counts(outcomes: dict[str, str]) -> str:
    return ", ".join(f"{Counter(outcomes.values())[kind]} {kind}" for kind in ("passed", "failed", "skipped"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", help="test modules of CPython; default: the quick six")
    parser.add_argument("--all", action="store_true", help="all fourteen, for minutes")
    parser.add_argument("-m", "--module", help=f"what stands in for socketserver; default: {OURS}")
    parser.add_argument("--path", action="append", default=[], help="put a directory on the module search path")
    parser.add_argument("--time-limit", type=float, default=300, help="seconds for each run of a module")
    parser.add_argument("--require", action="store_true", help="no test package is an error: exit status 3")
    parser.add_argument("-v", "--verbose", action="store_true", help="print what the tests print")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_in_this_process(options.tests[0], options.child, options.module)
    if not (importlib.util.find_spec("test") and importlib.util.find_spec("test.test_socketserver")):
        print("skipped: this interpreter ships no test package")
        return 3 if options.require else 0
    options.module = options.module or OURS
    options.path.append(str(ROOT))
    tests = options.tests or (f"{QUICK} {REST}" if options.all else QUICK).split()
    return 0 if all([compare(test, options) for test in tests]) else 1


if __name__ == "__main__":
    sys.exit(main())
