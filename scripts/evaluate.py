"""The same as ``hoi-train evaluate``, for launchers that want a file: torchrun scripts/evaluate.py …."""

import sys

from hoi_train.cli import main

if __name__ == "__main__":  # the processes that read import this file, too
    sys.exit(main(["evaluate", *sys.argv[1:]]))
