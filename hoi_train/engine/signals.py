"""Turn SIGTERM and SIGINT into a flag that the loop reads between steps."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType, TracebackType
from typing import Any

_HANDLED = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Handle SIGTERM and SIGINT in a ``with`` block of the main thread; the old handlers are restored after it.

    The first one only raises the flag, so that the step can be finished and the state saved. A SIGINT after that
    raises ``KeyboardInterrupt`` at once.

    >>> with Signals() as signals:
    ...     os.kill(os.getpid(), signal.SIGTERM)
    ...     signals.stop_requested, signals.exit_code
    (True, 143)
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def stop_requested(self) -> bool:
        """Whether a signal has asked the run to save its state and stop."""
        return self._first is not None

    @property
    def exit_code(self) -> int:
        """The code to exit with: 143 after SIGTERM, 130 after SIGINT, 0 if neither came."""
        return 0 if self._first is None else 128 + self._first

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._handle) for number in _HANDLED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not installed from Python

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._first is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self._first = number
        again = "; once more stops at once" if number == signal.SIGINT else ""
        message = f"\n{signal.Signals(number).name}: finishing the step and saving the state{again}\n"
        with contextlib.suppress(OSError):
            os.write(2, message.encode())  # not print: the signal may interrupt one
