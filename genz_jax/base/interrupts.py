"""Interrupts: Ctrl-C as a wish to stop between two blocks, so that what is done can be had."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Wish:
    """Whether an interrupt has come."""

    def __init__(self) -> None:
        self.stop = False


@contextmanager
def gently() -> Iterator[Wish]:
    """Note the first interrupt instead of raising it; the second is raised.

    Outside the main thread, where no handler can be set, interrupts are what they were.
    """
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        del number, frame
        wish.stop = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield wish
    finally:
        signal.signal(signal.SIGINT, before)
