"""What the package uses of the standard library's clock, threads and sockets.

Bound at first use, out of what there was when the plugin was loaded, which the package has kept: see ``originals``,
which everything else imports.
"""

from __future__ import annotations

import _thread
import os
import select
import selectors
import sys
import threading
import time
from types import BuiltinFunctionType

from . import _as_loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from threading import Thread as _Thread
    from types import ModuleType
    from typing import Any


# Two steps, at two times.  The load of the plugin copies the dictionaries of the modules (`_as_loaded`), which is cheap
# and comes before any test.  The first use of a server imports this module, which takes what it needs from the copies,
# since a test may have replaced anything by then.  So nothing here may read a name from the module itself where the
# copy has it.
#
# A copy may hold a replacement already, if a library patched the process before pytest loaded plugins.  A function of a
# C module is recognized by its type and its name, and is taken from a second copy of the module otherwise.  A class of
# Python code cannot be made twice, since `isinstance` would fail; it is found among the bases of what is there.
#
# Not done: a module that came after the load is taken as it is now.  What was replaced in it before cannot be known.


def _as_it_was(module: ModuleType) -> dict[str, Any]:
    """Return what a module had when the package was loaded; what it has now if it came later."""
    return _as_loaded.get(module.__name__, vars(module))


def _unpatched(module: ModuleType, name: str) -> Any:
    """Return a function of a C module; from a second copy of the module if somebody has put another in its place."""
    found = _as_it_was(module).get(name)
    if type(found) is BuiltinFunctionType and found.__name__ == name:
        return found
    from importlib.util import find_spec, module_from_spec

    spec = module.__spec__ or find_spec(module.__name__)
    if spec is None or spec.loader is None:
        return found
    copy = module_from_spec(spec)
    spec.loader.exec_module(copy)
    return getattr(copy, name, found)


def named(found: Iterable[Any], module: str, name: str, otherwise: Any) -> Any:
    """Return the first that was defined in this module by this name."""
    for each in found:
        if getattr(each, "__module__", "") == module and each.__name__ == name:
            return each
    return otherwise


_threading = _as_it_was(threading)
if not TYPE_CHECKING:
    # The main thread was made before any test, so its class is the real one, or derived from it.
    _main_thread = type(_threading["main_thread"]())
    _Thread = named([_threading["Thread"], *_main_thread.__mro__], "threading", "Thread", threading.Thread)
# Its functions, which a test may have replaced since.
_is_as_loaded = _Thread is _as_loaded.get("threading", {}).get("Thread")
_methods = _as_loaded["Thread"] if _is_as_loaded else {**vars(_Thread)}


class original:  # a namespace, as a module is
    """What there was of ``time``, ``threading`` and ``select`` before any test; ``originals`` adds ``socket``."""

    monotonic: Callable[[], float] = _unpatched(time, "monotonic")
    perf_counter: Callable[[], float] = _unpatched(time, "perf_counter")
    sleep: Callable[[float], None] = _unpatched(time, "sleep")

    getpid: Callable[[], int] = _unpatched(sys.modules[os.name], "getpid")  # a fake one would pass for a fork

    Lock: Callable[[], threading.Lock] = _unpatched(_thread, "allocate_lock")
    RLock: Callable[[], Any] = _as_it_was(_thread)["RLock"]
    get_ident: Callable[[], int] = _unpatched(_thread, "get_ident")
    start_new_thread: Callable[..., int] = _unpatched(_thread, "start_new_thread")
    current_thread: Callable[[], threading.Thread] = staticmethod(_threading["current_thread"])
    main_thread: Callable[[], threading.Thread] = staticmethod(_threading["main_thread"])
    all_threads: Callable[[], list[threading.Thread]] = staticmethod(_threading["enumerate"])

    # Of which those of originals.py are made.
    library_thread = _Thread
    thread_init: Callable[..., None] = _methods["__init__"]
    thread_start: Callable[..., None] = _methods["start"]
    thread_run: Callable[..., None] = _methods["run"]
    thread_join: Callable[..., None] = _methods["join"]
    thread_is_alive: Callable[..., bool] = _methods["is_alive"]
    library_condition = _threading["Condition"]
    thread_parts = tuple(
        (name, _threading[name]) for name in ("Condition", "Event", "Lock", "_allocate_lock", "get_ident")
    )

    poll: Any = _unpatched(select, "poll") if sys.platform != "win32" else None
    select: Callable[..., Any] = _unpatched(select, "select")
    PollSelector: Any = _as_it_was(selectors).get("PollSelector", selectors.SelectSelector)
