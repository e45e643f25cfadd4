"""Run ``hoi-train train``, for launchers that need a file: torchrun scripts/train.py …."""

import sys

from hoi_train.cli import main

if __name__ == "__main__":  # worker processes import this file, too
    sys.exit(main(["train", *sys.argv[1:]]))
