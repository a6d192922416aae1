"""The texts of reports and messages that tests compare, each in a file: ``same_text(text)``.

The n-th text of ``tests/test_report.py::test_it[udp]`` is ``tests/expected/test_report/test_it.udp-n.txt``, without
``-1`` for the first.  ``pytest --update-expected`` writes the texts anew; what it has changed is read in review, as a
diff.  Without it nothing is written: a text that differs, or has no file, fails its test and names the switch.

What differs from run to run is replaced by a placeholder before it is compared, by :func:`steady` alone.  A test that
has passed owns no further file; that each file has a test is ``test_expected_texts.py``'s business.

Each test writes its own files, so workers of pytest-xdist do not meet.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

SameText = Callable[[str], None]

EXPECTED = Path(__file__).parent / "expected"
SWITCH = "--update-expected"

#: What differs between runs, versions of Python and widths of ports, and the placeholder.
VARIES = [
    (r"\bexceptiongroup\.((Base)?ExceptionGroup: )", r"\1"),  # a package before Python 3.11
    (r"\[\d+\.\d{3}\]", "[T]"),
    (r"after \d+\.\d{3} s", "after T s"),
    (r"(127\.0\.0\.1|\[::1\]):\d{4,5}\b", r"\1:PORT"),
    (r"(?m)^([-_=])[-_=]* (\S.*?) \1+$", r"\1\1\1 \2 \1\1\1"),
]


def steady(text: str) -> str:
    """Return text without what differs between runs: ports, times, carets, widths, blank lines, a prefix on 3.10."""
    for pattern, placeholder in VARIES:
        text = re.sub(pattern, placeholder, text)
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(line for line in lines if line and not re.fullmatch(r"[\s|]*[~^]+", line))


def stem_of(nodeid: str) -> str:
    """Return what the files of a test are named, within ``expected``: ``test_report/test_it.udp``.

    No name of a test ends in a hyphen and a number then, as its further files do.
    """
    path, *names = nodeid.split("::")
    parts = [re.sub(r"[^\w.]+", "_", each).strip("_") for each in re.split(r"[\[\]]", ".".join(names)) if each]
    return f"{path.removeprefix('tests/').removesuffix('.py')}/{'.'.join(parts)}"


def file_of(stem: str, number: int) -> Path:
    """Return the file of a test's text, by its number from 1 on."""
    return EXPECTED / f"{stem}{'' if number == 1 else f'-{number}'}.txt"


def stem_of_file(path: Path) -> str:
    """Return the stem to which a file belongs."""
    return re.sub(r"-\d+$", "", path.relative_to(EXPECTED).with_suffix("").as_posix())


class Texts:
    """The texts of one test."""

    def __init__(self, stem: str, *, update: bool) -> None:
        self._stem, self._update = stem, update
        self._count = 0

    def __call__(self, text: str) -> None:
        """Compare a text with its file; write it there instead, if the switch says so.

        Raises:
            pytest.fail.Exception: It is another one, or there is no file.
        """
        __tracebackhide__ = True
        self._count += 1
        path = file_of(self._stem, self._count)
        odd = re.search(r"[^\n\t -~\u00a0-\ud7ff\ue000-\U0010ffff]", text)
        if odd is not None:
            pytest.fail(f"expected a text, and it has the character {odd[0]!r}: compare it where it is shown escaped")
        if self._update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8", newline="\n")
            return
        shown = path.relative_to(EXPECTED.parent.parent).as_posix()
        if not path.exists():
            pytest.fail(f"there is no {shown}: pytest {SWITCH} writes it; it would have this text\n\n{text}")
        with path.open(encoding="utf-8", newline="") as file:
            expected = file.read()
        if expected != text + "\n":
            difference = difflib.unified_diff(
                expected.split("\n"), (text + "\n").split("\n"), shown, "this run", lineterm=""
            )
            pytest.fail(
                "\n".join(["another text than the expected one:", *difference])
                + f"\n\nIf it is as it must be: pytest {SWITCH} writes it to the file; look at the difference."
            )

    def further(self) -> list[Path]:
        """Return the files of this test that none of its texts was compared with."""
        mine = [path for path in file_of(self._stem, 1).parent.glob("*.txt") if stem_of_file(path) == self._stem]
        return sorted(set(mine) - {file_of(self._stem, number) for number in range(1, self._count + 1)})
