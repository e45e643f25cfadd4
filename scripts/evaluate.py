"""The same as ``hoi-train evaluate``, for launchers that want a file: torchrun scripts/evaluate.py …."""

import sys

from hoi_train.cli import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
