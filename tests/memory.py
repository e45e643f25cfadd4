"""What a measuring subprocess asks about its own memory."""

from __future__ import annotations

import re
from pathlib import Path


def peak_gib() -> float:
    """Return the most memory this process has held since it began its program, in GiB; Linux only.

    ``ru_maxrss`` would not do: a process started with vfork inherits the peak of the one that started it.
    """
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 2**20
