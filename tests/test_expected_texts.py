"""The texts that tests compare stand in files: what the fixture says of each, and that no file is without its test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .expected_texts import EXPECTED, steady, stem_of, stem_of_file

TESTS = Path(__file__).parent


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite with the fixture, and one test that compares two texts."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini("[pytest]\naddopts = --import-mode=importlib -p no:cacheprovider\n")
    tests = pytester.mkdir("tests")
    for name in ("conftest.py", "expected_texts.py", "leak_guard.py", "lock_guard.py"):
        (tests / name).write_text((TESTS / name).read_text(encoding="utf-8"), encoding="utf-8")
    write(pytester, "one", "two")
    return pytester


def write(suite: pytest.Pytester, *texts: str) -> None:
    calls = "".join(f"    same_text({text!r})\n" for text in texts)
    source = f'import pytest\n@pytest.mark.parametrize("n", ["a-1"])\ndef test_it(n, same_text):\n{calls}    pass\n'
    (suite.path / "tests" / "test_some.py").write_text(source, encoding="utf-8")


def files(suite: pytest.Pytester) -> dict[str, str]:
    expected = suite.path / "tests" / "expected"
    return {path.relative_to(expected).as_posix(): path.read_text(encoding="utf-8") for path in expected.rglob("*.txt")}


def said(suite: pytest.Pytester, *args: str, **outcomes: int) -> str:
    result = suite.runpytest_subprocess("tests", *args)
    result.assert_outcomes(**outcomes)
    return result.stdout.str()


def test_switch_writes_the_files_and_without_it_they_are_compared(suite: pytest.Pytester) -> None:
    said(suite, "--update-expected", passed=1)
    assert files(suite) == {"test_some/test_it.a_1.txt": "one\n", "test_some/test_it.a_1-2.txt": "two\n"}

    said(suite, passed=1)


def test_missing_file_fails_names_the_switch_and_is_not_written(suite: pytest.Pytester) -> None:
    text = said(suite, failed=1)

    assert "there is no tests/expected/test_some/test_it.a_1.txt: pytest --update-expected writes it" in text
    assert files(suite) == {}


def test_other_text_fails_with_a_difference_and_names_the_switch(suite: pytest.Pytester) -> None:
    said(suite, "--update-expected", passed=1)
    write(suite, "one", "2")

    text = said(suite, failed=1)

    lines = [line.removeprefix("E").strip() for line in text.splitlines()]
    at = lines.index("--- tests/expected/test_some/test_it.a_1-2.txt")
    assert lines[at : at + 5] == [lines[at], "+++ this run", "@@ -1,2 +1,2 @@", "-two", "+2"]
    assert "If it is as it must be: pytest --update-expected writes it to the file; look at the difference." in text
    assert files(suite)["test_some/test_it.a_1-2.txt"] == "two\n"


def test_nothing_is_overlooked(suite: pytest.Pytester) -> None:
    def write_all(texts: list[str]) -> None:
        tests = [f"def test_{at}(same_text):\n    same_text({text!r})\n" for at, text in enumerate(texts)]
        (suite.path / "tests" / "test_some.py").write_text("\n".join(tests), encoding="utf-8")

    others = ["two ", "two\n", " two", "", "two\r", "Two"]
    write_all(["two"] * len(others))
    said(suite, "--update-expected", passed=len(others))
    write_all(others)

    said(suite, failed=len(others))


def test_further_file_is_an_error_until_the_switch_removes_it(suite: pytest.Pytester) -> None:
    said(suite, "--update-expected", passed=1)
    write(suite, "one")

    text = said(suite, passed=1, errors=1)
    assert "no text was compared with test_it.a_1-2.txt: pytest --update-expected removes it" in text

    said(suite, "--update-expected", passed=1)
    assert files(suite) == {"test_some/test_it.a_1.txt": "one\n"}


def test_test_that_failed_before_its_last_text_keeps_its_files(suite: pytest.Pytester) -> None:
    said(suite, "--update-expected", passed=1)
    write(suite, "1", "two")

    said(suite, failed=1)
    assert len(files(suite)) == 2


def test_what_is_no_text_is_refused(suite: pytest.Pytester) -> None:
    write(suite, "\x1b[31m")

    text = said(suite, "--update-expected", failed=1)

    assert r"expected a text, and it has the character '\x1b'" in text
    assert files(suite) == {}


def test_placeholders() -> None:
    text = """
        ==== a title ====
        == 0  from 127.0.0.1:50914, closed by the client after 0.004 s
        [0.004] C: [::1]:40000 and 10.0.0.1:40000, after 5 s, port 127.0.0.1:80
            ^^^^
          | ExceptionGroup  \n
        exceptiongroup.ExceptionGroup: 2 failures
    """
    assert steady(text).splitlines() == [
        "        ==== a title ====",
        "        == 0  from 127.0.0.1:PORT, closed by the client after T s",
        "        [T] C: [::1]:PORT and 10.0.0.1:40000, after 5 s, port 127.0.0.1:80",
        "          | ExceptionGroup",
        "        ExceptionGroup: 2 failures",
    ]
    assert steady("______ test_it ______\n--- x ----") == "___ test_it ___\n--- x ---"


def test_names_of_files() -> None:
    assert stem_of("tests/test_report.py::test_it") == "test_report/test_it"
    assert stem_of("tests/faults/test_rows.py::TestA::test_it[a/b-1]") == "faults/test_rows/TestA.test_it.a_b_1"
    assert stem_of_file(EXPECTED / "test_report" / "test_it.a_1-12.txt") == "test_report/test_it.a_1"


def test_each_file_has_its_test() -> None:
    """And no two tests have the same files."""
    modules = sorted({stem_of_file(path).rpartition("/")[0] for path in EXPECTED.rglob("*.txt")})
    paths = [path for module in modules if (path := TESTS / f"{module}.py").exists()]
    arguments = ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "--list-expected", *map(str, paths)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    listing = subprocess.run(
        [sys.executable, *arguments], cwd=TESTS.parent, env=environment, capture_output=True, text=True, timeout=50
    )
    assert listing.returncode == 0, listing.stdout + listing.stderr
    prefix = "compares texts: "
    stems = [line.removeprefix(prefix) for line in listing.stdout.splitlines() if line.startswith(prefix)]

    assert len(stems) == len(set(stems))
    others = sorted(str(path) for path in EXPECTED.rglob("*") if path.is_file() and stem_of_file(path) not in stems)
    assert not others, f"no test compares these: {', '.join(others)}; remove them"
