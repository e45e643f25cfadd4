"""Training procedures that need more than a loss: one file each, one line in the table."""

from hoi_train.methods.fit import Fit

METHODS: dict[str, type[Fit]] = {
    "fit": Fit,
}
