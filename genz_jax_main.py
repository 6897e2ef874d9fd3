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
    files = sys.modules.get("genz_jax.files")
    remove = getattr(files, "remove_unfinished", None)  # not there while the module is being imported
    if remove is not None:
        remove()
    os._exit(128 + number)


def main() -> None:
    """Run the command line."""
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    from genz_jax.cli import run

    run()


if __name__ == "__main__":
    main()
