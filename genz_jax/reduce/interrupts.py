"""Interrupts: stop after the current block on Ctrl-C and keep the partial result."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """Whether an interrupt has come: `stop` is true then."""

    def __init__(self) -> None:
        self.stop = False


@contextmanager
def stop_on_interrupt() -> Iterator[StopRequest]:
    """Note the first interrupt instead of raising it; the second is raised.

    Outside the main thread, where no handler can be set, interrupts are what they were.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        del number, frame
        request.stop = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, before)
