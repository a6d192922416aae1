"""Servers that end, and are judged, together: those of one factory, or one that a fixture of the user's has made."""

from __future__ import annotations

from ..errors.location import hide_frame
from ..recording.demands import Period, adopt, is_of_the_call, is_under_way
from ..recording.failures import Failure
from . import life_cycle
from .late_failures import Late
from .leaving import Haste
from .service import Service

__tracebackhide__ = hide_frame


class Fleet:
    """Some servers, in order of their making.

    Attributes:
        services: They.
        fixture: The name of the pytest fixture that they are of: its hooks judge.  ``None`` if there is none.
        put_off: What is to be told when the servers stop.
        is_followed: Another fixture of the running test was set up after them.
    """

    def __init__(self, *services: Service) -> None:
        self.services = list(services)
        self.fixture: str | None = None
        self.put_off: list[Failure] = []
        self.is_followed = False

    def stop(self, haste: Haste | None) -> None:
        """Stop all servers, from the last one to the first; once one stop was left, the others are in haste."""
        raised: BaseException | None = None
        for service in reversed(self.services):
            try:
                life_cycle.stop(service, haste)
            except Exception as error:
                raised = raised or error
            except BaseException as error:
                haste = haste or Haste()
                raised = raised if raised is not None and not isinstance(raised, Exception) else error
        if raised is not None:
            raise raised

    def be_adopted(self) -> None:
        """Let pytest's hooks judge it, if a fixture of the user's that outlives a test has made it."""
        if self.fixture is None:
            adopt(self)

    def add(self, service: Service) -> None:
        """Take a further server in."""
        self._tell_who_judges(service)
        self.services.append(service)

    def take_failures(self) -> list[Failure]:
        """Return what went wrong in all servers and was not told yet; if nothing did, all that is missing."""
        wrong, put_off = self.take_wrong(), self._take_put_off()
        return wrong or put_off + [failure for service in self.services for failure in service.verdict.take_missing()]

    def _take_put_off(self) -> list[Failure]:
        put_off, self.put_off = self.put_off, []
        return put_off

    def belong_to(self, fixture: str) -> None:
        """Be judged by pytest's hooks from now on, as the fixture's."""
        self.fixture = fixture
        for service in self.services:
            self._tell_who_judges(service)

    def let_go(self) -> list[Failure]:
        """Be judged by what stops it alone; return what was put off."""
        self.fixture = None
        for service in self.services:
            self._tell_who_judges(service)
        return self._take_put_off()

    def _tell_who_judges(self, service: Service) -> None:
        service.context.demands.are_judged_by_hooks = self.fixture is not None

    def begin_test(self) -> None:
        """Begin to count for a further test, on servers of a wider scope."""
        self.is_followed = False
        for service in self.services:
            service.verdict.begin_test()

    def take_wrong(self, *, is_last: bool = True) -> list[Failure]:
        """Return what went wrong in all servers, each once."""
        return [failure for service in self.services for failure in service.verdict.take_wrong(is_last=is_last)]

    def end_call(self, test: Period, *, has_failed: bool) -> list[Failure]:
        """Return what went wrong; if nothing did, what is missing of what the test demanded.  Its call is over.

        A fixture that was set up after the servers may still bring what is missing, while its connection is open.

        Args:
            has_failed: Then only scripts that are under way say where they stand: what never began is a consequence.
        """
        failures = self.take_wrong(is_last=False)
        is_wrong = bool(failures)
        for service in self.services:
            service.verdict.times.end_call()
            may_follow = self.is_followed and service.verdict.has_open_connection()
            if is_wrong or (may_follow and has_failed):
                continue
            which = is_under_way if has_failed else is_of_the_call if may_follow else None
            failures += service.verdict.take_missing(test, which=which)
        return failures

    def take_late(self) -> list[Late]:
        """Return what is to be told as warnings, each once."""
        return [late for service in self.services for late in service.verdict.take_late()]

    def end_period(self, period: Period, *, is_missing_told: bool) -> list[Failure]:
        """Return what went wrong since, and if nothing did, what is missing of what the period demanded; it is over.

        Args:
            is_missing_told: What went wrong is told alone if this is False.
        """
        failures = self.take_wrong(is_last=False)
        is_missing_told = is_missing_told and not failures
        for service in self.services:
            failures += service.verdict.take_missing(period) if is_missing_told else []
            service.context.demands.end(period)
        return failures

    def forget(self, period: Period) -> None:
        """Forget what a period demands."""
        for service in self.services:
            service.context.demands.end(period)
