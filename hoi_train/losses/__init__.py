"""Losses: one file a paper, one line in the table."""

from hoi_train.losses.base import Loss
from hoi_train.losses.bce import BCE
from hoi_train.losses.class_balanced import CBCrossEntropy, CBFocal
from hoi_train.losses.class_difficulty import CDBCrossEntropy
from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.focal import Focal

__all__ = ["LOSSES", "Loss"]

LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "bce": BCE,
    "focal": Focal,
    "cb_cross_entropy": CBCrossEntropy,
    "cb_focal": CBFocal,
    "cdb_ce": CDBCrossEntropy,
}
