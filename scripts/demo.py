"""Make the demo data set, train plain cross-entropy and CDB-CE on it, and compare them.

    make demo        or        python scripts/demo.py [--seeds 0 1]

Running it again uses the existing data set, resumes interrupted runs, and prints the table of the finished ones.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from data_tools.cli import main as hoi_data
from data_tools.options import at_least
from hoi_train.cli import main as hoi_train

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ("ce", "cdb_ce")


def main() -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[0], help="train both runs once per seed")
    seeds = parser.parse_args().seeds
    began = time.monotonic()
    manifest = Path("data/demo/manifest.parquet")
    if not manifest.is_file():
        code = hoi_data(["demo", "--out", str(manifest.parent), "--clips", "660"])
        if code:
            return code
    runs = []
    for seed in seeds:
        for name in CONFIGS:
            code = hoi_train(["train", str(ROOT / "configs" / "demo" / f"{name}.yaml"), f"seed={seed}"])
            if code:
                return code
            runs.append(f"runs/demo_{name}-seed{seed}")
    code = hoi_train(["compare", *runs, "--plot", "runs/demo_recall.png"])
    print(f"\n{time.monotonic() - began:.0f} s. The runs are {', '.join(runs)}.")
    return code


if __name__ == "__main__":
    sys.exit(main())
