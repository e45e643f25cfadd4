"""The same as ``hoi-train train``, for launchers that want a file: torchrun scripts/train.py …."""

import sys

from hoi_train.cli import main

if __name__ == "__main__":  # the processes that read import this file, too
    sys.exit(main(["train", *sys.argv[1:]]))
