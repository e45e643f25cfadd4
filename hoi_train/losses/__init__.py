"""Losses: one file per paper, one line in the table.

The tests' golden values were computed with, and the docstrings' statements about released code refer to, these commits;
no commit was recorded of other code that a docstring names:

=============================================================  ========
repository                                                     commit
=============================================================  ========
Alibaba-MIIL/ASL                                               8c9e0bd8
hitachi-rd-cv/CDB-loss                                         82b0119e
jiawei-ren/BalancedMetaSoftmax-Classification                  34a61e43
kaidic/LDAM-DRW                                                2536330f
nizhf/hoi-prediction-gaze-transformer (VidHOI)                 b56583e0
open-mmlab/mmdetection (GHM)                                   080742cb
orparask/VS-Loss                                               7ade9c99
richardaecn/class-balanced-loss                                1d785720
tztztztztz/eql.detectron2, tztztztztz/eqlv2                    29224acf, 907fad90
wutong16/DistributionBalancedLoss                              14460d0a
=============================================================  ========
"""

from hoi_train.losses.asymmetric import ASL
from hoi_train.losses.base import Loss
from hoi_train.losses.bce import BCE
from hoi_train.losses.class_balanced import CBCrossEntropy, CBFocal
from hoi_train.losses.class_difficulty import CDBBCE, CDBCrossEntropy
from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.distribution_balanced import DistributionBalanced
from hoi_train.losses.equalization import EQL, EQLSoftmax
from hoi_train.losses.equalization_v2 import EQLv2
from hoi_train.losses.equalized_focal import EqualizedFocal
from hoi_train.losses.focal import Focal
from hoi_train.losses.ghm import GHM
from hoi_train.losses.ldam import LDAM
from hoi_train.losses.logit_adjustment import BalancedSoftmax, LogitAdjustment
from hoi_train.losses.seesaw import Seesaw
from hoi_train.losses.two_way import TwoWay
from hoi_train.losses.vs import VS
from hoi_train.losses.zlpr import ZLPR

__all__ = ["LOSSES", "Loss"]

LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "bce": BCE,
    "focal": Focal,
    "cb_cross_entropy": CBCrossEntropy,
    "cb_focal": CBFocal,
    "cdb_ce": CDBCrossEntropy,
    "cdb_bce": CDBBCE,
    "ldam": LDAM,
    "balanced_softmax": BalancedSoftmax,
    "logit_adjustment": LogitAdjustment,
    "vs": VS,
    "asl": ASL,
    "distribution_balanced": DistributionBalanced,
    "zlpr": ZLPR,
    "two_way": TwoWay,
    "ghm": GHM,
    "eql": EQL,
    "eql_softmax": EQLSoftmax,
    "eql_v2": EQLv2,
    "equalized_focal": EqualizedFocal,
    "seesaw": Seesaw,
}
