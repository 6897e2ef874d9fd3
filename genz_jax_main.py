"""The command genz-jax: signals are set up before all that takes long to import."""

import os
import signal
import sys
from types import FrameType

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def stop(number: int, frame: FrameType | None) -> None:
    """End the process as a shell expects it, 130 after Ctrl-C, and leave no half file.

    An exception would pass through the compiler, which cannot bear one everywhere.
    """
    del frame
    files = sys.modules.get("genz_jax.base.files")
    remove = getattr(files, "remove_unfinished", None)  # not there while the module is being imported
    if remove is not None:
        remove()
    os._exit(128 + number)


def main() -> None:
    """Run the command line."""
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, stop)
    try:
        from genz_jax.cli import run

        run()
    finally:
        # All is written; the interpreter gives signals back their default while it ends, and would be killed by one.
        for number in taken:
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
