"""Run the examples of CONTRIBUTING.md in this process, in which the tables have them from the beginning.

    python -m tests.contributing_run FOLDER

FOLDER holds ``data/`` with the small data set. An annotation in the example's format is imported; then a run that uses
the other examples is trained for two epochs, one for each stage of the method.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np

from data_tools.importers import FORMATS, run_import
from data_tools.importers.samples import Options
from hoi_train.data.manifest import read_manifest, write_manifest
from hoi_train.data.readers import READERS
from hoi_train.losses import LOSSES
from hoi_train.methods import METHODS
from hoi_train.metrics import METRICS
from hoi_train.models.backbones import BACKBONES
from hoi_train.tracking import TRACKERS
from tests.conftest import ROOT
from tests.small import VERB, make_config


def examples() -> dict[str, Any]:
    """Execute the Python blocks of the page, each as a file of its own, and return all their names."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL):
        own: dict[str, Any] = {"__name__": "example"}
        exec(compile(block, "CONTRIBUTING.md", "exec", dont_inherit=True), own)
        names |= own
    return names


def main(folder: Path) -> None:
    """Register the examples, import and train."""
    found = examples()
    LOSSES["label_smoothing"] = found["LabelSmoothing"]
    METHODS["heads_first"] = found["HeadsFirst"]
    BACKBONES["torchvision_r3d_18"] = found["torchvision_r3d_18"]
    METRICS["specificity"] = found["SPECIFICITY"]
    TRACKERS["table"] = found["TableTracker"]
    READERS["numpy"], FORMATS["takes"] = found["NumpyReader"], found["read_takes"]  # type: ignore[index]

    from hoi_train.config import load_config
    from hoi_train.engine.train import train

    clips = read_manifest(folder / "data" / "manifest.parquet")
    rows = [clips.clip(row) for row in range(len(clips))]
    lines = [f"{row.path.name},{VERB.classes.names[row.labels['verb']]},someone,{row.split}" for row in rows]
    annotation = folder / "takes.csv"
    annotation.write_text("\n".join(["file,action,person,part", *lines]) + "\n")
    options = Options(videos=folder / "data", out=folder / "imported")
    run_import("takes", options, {"annotations": annotation})

    arrays = []
    for row in rows:
        with av.open(str(row.path)) as video:
            np.save(
                folder / f"{row.clip_id}.npy", [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
            )
        verb = VERB.classes.names[row.labels["verb"]]
        arrays.append({"clip_id": row.clip_id, "path": f"{row.clip_id}.npy", "split": row.split, "verb": verb})
    write_manifest(folder / "arrays.parquet", arrays, [VERB], root=folder)
    config = make_config(
        folder,
        folder / "arrays.parquet",
        data={"reader": "numpy"},
        model={"backbone": "torchvision_r3d_18"},
        loss={"name": "label_smoothing", "smoothing": 0.2},
        method={"name": "heads_first", "epochs": 1},
        training={"epochs": 2, "batch_size": 12},
        checkpoints={"monitor": "verb/specificity_macro"},
        trackers={"table": {"file": "numbers.csv"}},
    )
    sys.exit(train(load_config(config)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
