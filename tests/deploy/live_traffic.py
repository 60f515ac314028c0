"""What producers and users do to a stack while it is watched: a little of everything, as long as it is asked for."""

import contextlib
import itertools
import random
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from nearkin.client.lookup import BlockingLookupClient
from nearkin.client.producer import Producer, now_ms
from nearkin.contracts.topics import ITEMS
from nearkin.core.errors import NearkinError
from nearkin.core.feedback import Action, Shown
from nearkin.core.item import Content, Offer
from nearkin.embedded.catalogue.online_retail import load_catalogue
from nearkin.ops.tls import Tls

ITEM_IDS = [f"item-{number}" for number in range(60)]

#: Of the slates that were drawn at random, priors are learned.
PROPENSITY = 0.2


class Traffic:
    """Threads that publish items and feedback, and look up; as a context manager.

    Args:
        bootstrap: the broker.
        lookup_address: where to look up.
        trusts: whom to trust there.

    Attributes:
        feedback: whether there is any of it now.
        poison: whether every second item is none.
        crowd: whether more is looked up at once than the server takes.
        ahead_ms: by how much the producers' clocks are ahead.
    """

    def __init__(self, bootstrap: str, lookup_address: str, trusts: Tls) -> None:
        self.feedback, self.poison, self.crowd = True, False, False
        self.ahead_ms = 0
        self._bootstrap, self._lookup_address, self._trusts = bootstrap, lookup_address, trusts
        self._draw = random.Random(7)
        self._titles = [item.title for item in load_catalogue()[: len(ITEM_IDS)]]
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=work.__name__) for work in (self._publish, self._look_up, self._crowd_in)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _again(self, every_s: float, step: Callable[[int], None]) -> None:
        """Do something again and again; what fails is not this thread's to mend."""
        for number in itertools.count():
            if self._over.wait(every_s):
                return
            with contextlib.suppress(NearkinError):
                step(number)

    def _publish(self) -> None:
        producer = Producer(self._bootstrap)
        try:
            self._again(0.1, lambda number: self._publish_some(producer, number))
        finally:
            producer.close(10)

    def _publish_some(self, producer: Producer, number: int) -> None:
        at = now_ms() + self.ahead_ms
        one = number % len(ITEM_IDS)
        content = Content(title=f"{self._titles[one]} {number}")
        producer.upsert(ITEM_IDS[one], content, at, offer=Offer(markets=("GB",)), occurred_at=at)
        if self.poison:
            producer.send(ITEM_IDS[one].encode(), b"no event", ITEMS)
        if self.feedback:
            self._use(producer, number)

    def _use(self, producer: Producer, number: int) -> None:
        anchor, *items = self._draw.sample(ITEM_IDS, 5)
        request, user = f"request-{number}", f"test:{number % 7:032x}"
        places = [Shown(item, position, propensity=PROPENSITY) for position, item in enumerate(items, 1)]
        producer.impressions(anchor, request, "product-page", places, pseudonym=user)
        for _ in range(2 if number % 5 == 0 else 1):  # some come twice
            producer.interaction(
                anchor,
                items[0],
                Action.CLICK,
                request_id=request,
                surface="product-page",
                position=1,
                propensity=PROPENSITY,
                pseudonym=user,
                event_id=f"click-{number}",
            )
        # One user does the same again and again.
        producer.interaction(ITEM_IDS[0], ITEM_IDS[1], Action.SAVE, pseudonym=f"test:{1:032x}")
        if number % 5 == 0:
            producer.visit(f"visit-{number}", items, pseudonym=user)

    def _look_up(self) -> None:
        with BlockingLookupClient(self._lookup_address, tls=self._trusts) as client:

            def step(number: int) -> None:
                if number % 3:
                    client.similar(item_id=ITEM_IDS[number % len(ITEM_IDS)], k=5, timeout_s=1.0)
                else:  # no evidence knows it: the index alone can answer
                    client.similar(content=Content(title=self._titles[number % len(ITEM_IDS)]), k=5, timeout_s=1.0)

            self._again(0.05, step)

    def _crowd_in(self) -> None:
        with BlockingLookupClient(self._lookup_address, tls=self._trusts) as client:

            def step(_number: int) -> None:
                if self.crowd:
                    client.similar_many(ITEM_IDS[:20], k=5, timeout_s=1.0)

            self._again(0.02, step)
