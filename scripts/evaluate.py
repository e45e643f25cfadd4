"""Run ``hoi-train evaluate``, for launchers that need a file: torchrun scripts/evaluate.py …."""

import sys

from hoi_train.cli import main

if __name__ == "__main__":  # worker processes import this file, too
    sys.exit(main(["evaluate", *sys.argv[1:]]))
