"""The same as ``hoi-train train``, for launchers that want a file: torchrun scripts/train.py …."""

import sys

from hoi_train.cli import main

sys.exit(main(["train", *sys.argv[1:]]))
