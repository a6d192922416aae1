"""Real socket servers for tests of network clients: the public names, nothing else.

They are imported when first used: every run of pytest with the plugin installed imports this module.  It is short for
that reason; the names are in ``public``.
"""

import sys

__version__ = "0.1.0"

# What these had before any test could replace it, as far as they are loaded: ``bound`` takes its pick.  In a dict,
# where freezegun looks for no clock.
_as_loaded = {
    name: vars(sys.modules[name]).copy()
    for name in ("time", "threading", "_thread", "select", "selectors", "posix", "nt")
    if name in sys.modules
}
if "threading" in _as_loaded:
    _as_loaded["Thread"] = dict(getattr(sys.modules["threading"].Thread, "__dict__", {}))


def __getattr__(name):
    from .public import value_of

    value = globals()[name] = value_of(name)
    return value


def __dir__():
    from .public import names_of

    return sorted({*globals(), *names_of()})
