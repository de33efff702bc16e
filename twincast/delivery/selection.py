"""Which devices and entries a subscription selects: found in slices, and kept for equal subscriptions."""

from collections.abc import Sequence
from itertools import islice

from twincast.core.sorted_names import SortedNames
from twincast.core.state import State
from twincast.core.subscription import Rule, Subscription
from twincast.delivery.cast import Cast

KEPT_MAX = 64
KEPT_NAMES_MAX = 1_000_000
"""How many selections, and how many names in all of them, are kept; those that were used last."""
SEARCH_STEPS = 100
"""How many steps one filter is searched for, before the others are asked about what it found."""
UNSORTED_SEARCHES = 1
"""How many searches look at each name, before the names are put in order, which takes about as long."""
RUN_NAMES, SORT_STEPS = 1_024, 2_000
"""How many names are put in order at once, and how many steps that takes."""
SELECTS_NOTHING = Subscription(frozenset())


class Runs:
    """All devices as they came, in runs of `RUN_NAMES`. Each is put in order when it is first asked for."""

    def __init__(self) -> None:
        self._names: Sequence[str] = ()
        self._runs: dict[int, SortedNames] = {}  # by where they begin

    def run(self, names: Sequence[str], start: int) -> tuple[SortedNames, int]:
        """Return the run of `names` that begins at `start`, and how many steps that took; it must be complete."""
        if self._names is not names:
            self._names, self._runs = names, {}
        run = self._runs.get(start)
        if run is not None:
            return run, 0
        run = self._runs[start] = SortedNames(names[start : start + RUN_NAMES])
        return run, SORT_STEPS


class Selection:
    """The devices that a subscription selects, and another one does not; Work of delivery/scheduler.

    Each device is asked about once, in the order in which the devices were made. So the search goes on when a new
    device is there, and never begins anew.
    """

    def __init__(
        self,
        state: State,
        subscription: Subscription,
        but_not: Subscription = SELECTS_NOTHING,
        runs: Runs | None = None,
    ) -> None:
        """Begin a search.

        Args:
            state: where the devices are.
            subscription: what selects them.
            but_not: what selects those that are left out.
            runs: the devices in order; None to look at each of them.
        """
        self._state = state
        self._deaths = -1  # how many there were when the deleted devices were dropped: the births may have some already
        self._found: dict[str, None] = {}
        self._among: Sequence[str] = ()
        self._until = 0
        self._listed: Sequence[str] | None = None  # where names say all, no other device need be asked about
        wanted, readable = subscription.wanted.names("data_update"), subscription.readable
        if not subscription.literals or wanted.is_listed:
            self._listed = [name for kind, name in subscription.exact if kind == "data_update"]
        elif readable.is_listed:
            self._listed = sorted(readable.exact)
        # One filter is searched by, the others are asked about what it finds.
        self._first, second = (readable, wanted) if wanted.is_all else (wanted, readable)
        self._second = None if second.is_all else second
        self._but_not = None if but_not is SELECTS_NOTHING else but_not
        self._unasked: list[str] = []
        self._runs = runs if self._listed is None and self._first.is_found_in_order else None

    def __len__(self) -> int:
        return len(self._found)

    @property
    def is_done(self) -> bool:
        """Whether all devices that there are have been asked about."""
        names = self._names()
        return self._among is names and self._until == len(names) and not self._unasked

    def advance(self, max_steps: int) -> int:
        """See Work."""
        names = self._names()
        if self._among is not names:  # what was found stays so
            self._among, self._until = names, 0
        is_found = self._second is None and self._but_not is None
        steps = 0
        while steps < max_steps:
            if self._unasked:
                steps += self._ask(self._unasked.pop())
            elif self._until < len(names):
                found, cost = self._search(names, max_steps if is_found else SEARCH_STEPS)
                steps += cost
                if is_found:
                    self._found |= dict.fromkeys(found)
                else:
                    self._unasked = found[::-1]
            else:
                break
        return steps

    def _search(self, names: Sequence[str], max_steps: int) -> tuple[list[str], int]:
        """Return what the first filter selects of the next names, and how many steps it took."""
        end = self._until + RUN_NAMES
        if self._runs is None or self._until % RUN_NAMES or end > len(names):
            found, self._until, steps = self._first.search(names, self._until, max_steps)
            return found, steps
        run, steps = self._runs.run(names, self._until)
        found, cost = self._first.pick(run)
        self._until = end
        return found, steps + cost

    def _ask(self, name: str) -> int:
        """Ask the other filters about a name, and return how many steps it took."""
        is_selected, steps = (True, 0) if self._second is None else self._second.ask(name)
        if is_selected and self._but_not is not None:
            is_had, cost = self._but_not.ask(("data_update", name))
            is_selected, steps = not is_had, steps + cost
        if is_selected:
            self._found[name] = None
        return max(steps, 1)

    def names(self) -> list[str]:
        """Return the selected devices, of those that there are now."""
        if self._listed is not None:
            twins = self._state.twins
            return [name for name in self._found if name in twins]
        self._drop_deleted()
        return list(self._found)

    def count(self) -> int:
        """Return how many of the selected devices there are now."""
        if self._listed is not None:
            return len(self.names())
        self._drop_deleted()
        return len(self._found)

    def _drop_deleted(self) -> None:
        """Drop the deleted devices; a device that is made again is a new one."""
        if self._deaths != self._state.deaths:
            self._deaths, twins = self._state.deaths, self._state.twins
            self._found = {name: None for name in self._found if name in twins}

    def _names(self) -> Sequence[str]:
        return self._state.births() if self._listed is None else self._listed


class Selections:
    """Selections of one state, kept for subscriptions with equal rules and rights, whatever mode and frequency."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._kept: dict[tuple[frozenset[Rule], frozenset[str]], Selection] = {}
        self._runs = Runs()
        self._searches = 0

    def of(self, subscription: Subscription) -> Selection:
        """Return the devices that a subscription selects, as far as they were found."""
        key = subscription.rules, subscription.within
        selection = self._kept.pop(key, None)
        if selection is None:
            selection = self._begin(subscription)
        self._kept[key] = selection  # behind all others: it was used last
        names = sum(map(len, self._kept.values()))
        while len(self._kept) > 1 and (len(self._kept) > KEPT_MAX or names > KEPT_NAMES_MAX):
            names -= len(self._kept.pop(next(iter(self._kept))))
        return selection

    def added(self, subscription: Subscription, before: Subscription) -> Selection:
        """Return the devices that a subscription selects in addition to the one before it."""
        if subscription.within == before.within:
            subscription = Subscription(subscription.rules - before.rules, within=subscription.within)
        return self._begin(subscription, before)

    def _begin(self, subscription: Subscription, but_not: Subscription = SELECTS_NOTHING) -> Selection:
        self._searches += 1
        runs = self._runs if self._searches > UNSORTED_SEARCHES else None
        return Selection(self._state, subscription, but_not, runs)


class Picking:
    """What a subscription selects of a cast; Work of delivery/scheduler."""

    def __init__(self, cast: Cast, subscription: Subscription) -> None:
        self._cast = cast
        self._subscription = subscription
        self._is_all = subscription.is_everything and not cast.has_late
        self._asked = 0
        self._indexes: list[int] = []

    @property
    def is_done(self) -> bool:
        """Whether all of the cast was looked through."""
        return self._is_all or self._asked == len(self._cast.topics)

    def advance(self, max_steps: int) -> int:
        """See Work."""
        steps = 0
        for topic, indexes in islice(self._cast.topics.items(), self._asked, None):
            is_selected, cost = self._subscription.learn(topic)
            steps += cost
            self._asked += 1
            if is_selected:
                self._indexes += indexes
            if steps >= max_steps:
                break
        return steps

    def picked(self) -> Cast:
        """Return what is selected."""
        return self._cast if self._is_all else self._cast.pick(sorted(self._indexes))
