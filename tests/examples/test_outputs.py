"""The reports that the documentation shows are what pytest prints.

Each file in ``failing`` is a test that fails, and the text beside it is its report.  After a change of the reports
``pytest --update-expected tests/examples/test_outputs.py`` writes the texts anew; look at the difference.
"""

import os
import re
from pathlib import Path

import pytest

import pytest_sockserver.pytest_plugin.hooks
import pytest_sockserver.server.datagram
import pytest_sockserver.server.stream  # noqa: F401  (pytester unloads what a run inside this process has loaded)

FAILING = Path(__file__).parent / "failing"

# What differs from run to run, or from one Python to another.
VARIES = [
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"\[\d+\.\d{3}\]", "[TIME]"),
    (r"(after|in) \d+\.\d+ ?s", r"\1 SECONDS"),
    (r"0x[0-9a-f]+", "0xADDRESS"),
    (r"^[-=]+ (.*?) [-=]+$", r"- \1 -"),  # ports and times of more digits make rules of other lengths
    (r"\n *\^+(?=\n)", ""),  # no carets before Python 3.11
    (r"exceptiongroup\.ExceptionGroup", "ExceptionGroup"),  # a package before Python 3.11
    (r"^(FAILED|ERROR) (\S+) - .*", r"\1 \2"),  # cut to the width of the line
]


def report_of(pytester, monkeypatch, source):
    """Run one failing test; return what pytest prints, without its head."""
    monkeypatch.setenv("COLUMNS", "88")
    for name in ("PYTEST_ADDOPTS", "CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    name = "test_thermometer.py" if source.stem.startswith("tutorial") else f"test_{source.name}"
    pytester.path.joinpath(name).write_text(source.read_text())
    others = [word for plugin in ("randomly", "asyncio", "cacheprovider") for word in ("-p", f"no:{plugin}")]
    output = str(pytester.runpytest_inprocess(*others, "--color=no", name).stdout)
    report = re.search(r"^=+ (FAILURES|ERRORS) =+\n.*", output, re.DOTALL | re.MULTILINE)
    assert report is not None, output
    return report[0].replace(f"{pytester.path}{os.sep}", "").rstrip() + "\n"


def without_what_varies(report):
    for pattern, word in VARIES:
        report = re.sub(pattern, word, report, flags=re.MULTILINE)
    return [line.rstrip() for line in report.splitlines()]


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="the texts are those of pytest 9, which says some things anew")
@pytest.mark.parametrize("source", sorted(FAILING.glob("*.py")), ids=lambda source: source.stem)
def test_report_is_the_one_in_the_documentation(pytester, monkeypatch, source, update_expected):
    report = report_of(pytester, monkeypatch, source)

    shown = source.with_suffix(".txt")
    if not shown.exists() and not update_expected:
        pytest.fail(
            f"there is no {shown.name}: pytest --update-expected writes it; it would have this text\n\n{report}"
        )
    expected = shown.read_text() if shown.exists() else ""
    if update_expected:
        if without_what_varies(report) != without_what_varies(expected):  # else ports and times would differ each time
            shown.write_text(report)
        return
    assert without_what_varies(report) == without_what_varies(expected), "pytest --update-expected writes it anew"


def test_each_text_has_its_test():
    assert {path.stem for path in FAILING.glob("*.txt")} == {path.stem for path in FAILING.glob("*.py")}
