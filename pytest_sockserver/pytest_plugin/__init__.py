"""Options, fixtures, hooks and reports.  The only folder that imports pytest.

What the plugin shares with the modules that it imports later stands here.
"""

from __future__ import annotations

import pytest

SETTINGS = {  # ini setting and flag: its type, and what it says
    "timeout": ("float", "seconds that each wait and verb of a server may take (default: 5)"),
    "stop_timeout": ("float", "seconds that a stop gives the threads of a server to end (default: 5)"),
    "record_limit": ("int", "bytes of memory that a server's recording may take (default: 64 MiB)"),
    "host": ("string", "address that servers listen on (default: 127.0.0.1)"),
}

#: When a test's time limit runs out, on the clock of monotonic(), and whether that ends the process; set by
#: pytest-timeout, if it is there.
ends_key = pytest.StashKey["tuple[float, bool]"]()
