"""Training methods beyond a loss: one file each, one line in the table.

Joint training, the baseline of two-stage methods, is ``fit`` with any loss and any ``data.sampling``.

The tests' golden values were computed with, and the docstrings' statements about released code refer to, these commits:

=============================================================  ========
repository                                                     commit
=============================================================  ========
danieltan07/learning-to-reweight-examples                      182aad0d
facebookresearch/classifier-balancing                          f162adef
uber-research/learning-to-reweight-examples (read only)        0b616c99
xjtushujun/meta-weight-net                                     3f1800ff
xjtushujun/Meta-weight-net_class-imbalance                     20c3276b
zhmiao/OpenLongTailRecognition-OLTR                            f50e375f
=============================================================  ========
"""

from hoi_train.methods.adjusted import NCM, PostHocLogitAdjustment, TauNorm
from hoi_train.methods.decoupled import CRT, LWS
from hoi_train.methods.fit import Fit
from hoi_train.methods.learning_to_reweight import LearningToReweight
from hoi_train.methods.meta_weight_net import MetaWeightNet
from hoi_train.methods.oltr import OLTR

METHODS: dict[str, type[Fit]] = {
    "fit": Fit,
    "crt": CRT,
    "lws": LWS,
    "tau_norm": TauNorm,
    "ncm": NCM,
    "post_hoc_logit_adjustment": PostHocLogitAdjustment,
    "oltr": OLTR,
    "l2rw": LearningToReweight,
    "mwn": MetaWeightNet,
}
