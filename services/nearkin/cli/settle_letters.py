"""Settles dead letters: a marker goes behind each of them, in its own partition."""

from collections.abc import Iterable
from concurrent.futures import Future

from nearkin.cli.find_letters import SOURCE_OF
from nearkin.client.producer import Producer, Published, now_ms
from nearkin.ops.letters import Letter, Settled, marker_headers


def settle(producer: Producer, letters: Iterable[tuple[Letter, str]], settled: Settled) -> int:
    """Mark letters as settled, and return once the broker has every marker; how many there are.

    Args:
        producer: of the broker where they lie.
        letters: each with why it was dropped, or where it was sent.
        settled: what became of them.

    Raises:
        Unavailable: the broker does not answer; some may be marked.
    """
    sent: list[Future[Published]] = [
        producer.send(
            letter.key or b"",
            b"",
            SOURCE_OF[letter.id.topic].dead_letters,
            headers=marker_headers(letter.id, settled, because, now_ms()),
            partition=letter.id.partition,
        )
        for letter, because in letters
    ]
    for outcome in sent:
        outcome.result()
    return len(sent)
