"""Train every loss and method on the demo set with several seeds, and print the means side by side.

    python scripts/compare_losses.py --task verb --seeds 0 1 2 --jobs 2
    python scripts/compare_losses.py --task noun --seeds 0 1 2 --jobs 2
    python scripts/compare_losses.py --task verb --only cross_entropy DRW "ldam, DRW"

Needs the demo set (``hoi-data demo --out data/demo --clips 660``). All runs are ``configs/demo/ce.yaml`` or
``configs/demo/noun_bce.yaml`` with the overrides below, or the method's own configuration; nothing is tuned. Each
job trains in one process with one thread. Finished runs are not repeated, so an interrupted campaign is resumed; the
table shows how many seeds each row has.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.progress import track

from data_tools.options import at_least
from hoi_train.engine.run import has_recorded
from hoi_train.reports.tables import rows

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = {"verb": "ce.yaml", "noun": "noun_bce.yaml"}
PRIOR = "tasks.verb.head={name: linear, prior: 0.125}"  # one of eight verbs, for losses on sigmoid scores
DEFERRED = "{scheme: effective, beta: 0.9999, from_epoch: 16}"  # of 20, as 160 of 200

VERB: dict[str, Sequence[str]] = {
    "cross_entropy": ["loss=cross_entropy"],
    "inverse frequency": ["loss.weights={scheme: inverse}"],
    "square-root inverse": ["loss.weights={scheme: sqrt_inverse}"],
    "cb_cross_entropy": ["loss=cb_cross_entropy"],
    "DRW": [f"loss.weights={DEFERRED}"],
    "focal": ["loss=focal"],
    "cb_focal": ["loss=cb_focal", PRIOR],
    "ghm": ["loss=ghm", PRIOR],
    "cdb_ce": ["loss=cdb_ce"],
    "cdb_ce, momentum 0.8": ["loss={name: cdb_ce, momentum: 0.8}"],
    "cdb_ce, smoothing 10": ["loss={name: cdb_ce, smoothing: 10}"],
    "eql": ["loss=eql", PRIOR],
    "eql_softmax": ["loss={name: eql_softmax, threshold: 0.03}"],
    "eql_v2": ["loss=eql_v2", PRIOR],
    "equalized_focal": ["loss=equalized_focal", PRIOR],
    "ldam": ["loss=ldam", "tasks.verb.head=cosine"],
    "ldam, DRW": [f"loss={{name: ldam, weights: {DEFERRED}}}", "tasks.verb.head=cosine"],
    "balanced_softmax": ["loss=balanced_softmax"],
    "vs": ["loss=vs"],
    "seesaw": ["loss=seesaw"],
    "class-balanced sampling": ["data.sampling=class_balanced"],
    "square-root sampling": ["data.sampling=square_root"],
    "progressive sampling": ["data.sampling=progressive"],
    "mixup": ["data.mixing=mixup"],
    "cutmix": ["data.mixing=cutmix"],
    "crt": ["crt.yaml"],
    "lws": ["lws.yaml"],
    "tau_norm": ["tau_norm.yaml"],
    "ncm": ["ncm.yaml"],
    "logit adjustment, post hoc": ["logit_adjustment_post_hoc.yaml"],
    "oltr": ["oltr.yaml"],
    "l2rw": ["l2rw.yaml"],
    "mwn": ["mwn.yaml"],
}
NOUN: dict[str, Sequence[str]] = {
    "bce": ["loss=bce"],
    "inverse frequency": ["loss.weights={scheme: inverse}"],
    "focal": ["loss=focal"],
    "cb_focal": ["loss=cb_focal"],
    "cdb_bce": ["loss=cdb_bce"],
    "ghm": ["loss=ghm"],
    "eql": ["loss={name: eql, threshold: 0.1}"],
    "eql_v2": ["loss=eql_v2"],
    "equalized_focal": ["loss=equalized_focal"],
    "logit_adjustment": ["loss=logit_adjustment"],
    "asl": ["loss=asl"],
    "distribution_balanced": ["loss=distribution_balanced"],
    "zlpr": ["loss=zlpr"],
    "two_way": ["loss=two_way"],
    "class-balanced sampling": ["data.sampling=class_balanced"],
}
VARIANTS: Mapping[str, Mapping[str, Sequence[str]]] = {"verb": VERB, "noun": NOUN}
COLUMNS = {
    "verb": ("top-1", "macro recall", "macro precision", "majority recall", "minority recall", "minority precision"),
    "noun": ("mAP", "majority mAP", "minority mAP", "macro recall", "macro precision"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Train the missing runs, print the table as Markdown and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=VARIANTS, default="verb")
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the rows")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/losses"))
    parser.add_argument("--table", action="store_true", help="train nothing, show what there is")
    arguments = parser.parse_args(argv)
    variants = VARIANTS[arguments.task]
    unknown = sorted(set(arguments.only or ()) - set(variants))
    if unknown:
        parser.error(f"--only: unknown {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, variants))}")
    names, seeds = list(dict.fromkeys(arguments.only or variants)), list(dict.fromkeys(arguments.seeds))
    failed: list[Path] = []
    if not arguments.table:
        try:
            arguments.runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--runs: {error}; give another folder")
        try:
            failed = _train(arguments.task, names, seeds, arguments.runs, arguments.jobs)
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)
            return 130
    print(table(arguments.task, names, seeds, arguments.runs))
    if not any(has_recorded(run_folder(arguments.task, *job, arguments.runs), "end") for job in product(names, seeds)):
        print(f"no run of these rows and seeds is finished in {arguments.runs}", file=sys.stderr)
    for folder in failed:
        log = folder.with_suffix(".log")
        print(f"failed: {log}: {(log.read_text().splitlines() or ['it is empty'])[-1]}", file=sys.stderr)
    return 1 if failed else 0


def arguments_of(task: str, name: str) -> tuple[Path, list[str]]:
    """Return the configuration of a row and its overrides."""
    overrides = list(VARIANTS[task][name])
    file = overrides.pop(0) if overrides[0].endswith(".yaml") else CONFIGS[task]
    return ROOT / "configs/demo" / file, overrides


def run_folder(task: str, name: str, seed: int, runs: Path) -> Path:
    """Return the run directory of one row and seed."""
    word = "".join(letter if letter.isalnum() else "_" for letter in name)
    return runs / f"{task}-{word}-seed{seed}"


def table(task: str, names: Sequence[str], seeds: Sequence[int], runs: Path) -> str:
    """Return the means over the finished runs in percent, as Markdown, with the range for the rare classes."""
    columns = COLUMNS[task]
    rare = columns[4] if task == "verb" else columns[2]
    lines = [("", "seeds", *columns, f"{rare}: range"), ("---",) * (len(columns) + 3)]
    for name in names:
        folders = [run_folder(task, name, seed, runs) for seed in seeds]
        done = [folder for folder in folders if has_recorded(folder, "end")]
        if done:
            values = [row.values for row in rows(done, task=task)]
            means = (f"{100 * mean(each[column] for each in values):.1f}" for column in columns)
            spread = sorted(100 * each[rare] for each in values)
            lines.append((name, str(len(done)), *means, f"{spread[0]:.1f} to {spread[-1]:.1f}"))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _train(task: str, names: Sequence[str], seeds: Sequence[int], runs: Path, jobs: int) -> list[Path]:
    """Train every row with every seed; return the run directories of those that failed."""
    todo = [(name, seed) for seed, name in product(seeds, names)]

    def train(job: tuple[str, int]) -> tuple[Path, int]:
        folder = run_folder(task, *job, runs)
        config, overrides = arguments_of(task, job[0])
        command = [sys.executable, str(ROOT / "scripts/train.py"), str(config), *overrides]
        command += [f"name={folder.name.rpartition('-')[0]}", f"seed={job[1]}", f"runs={runs}"]
        command += ["wandb.mode=disabled", "data.workers=0"]
        with folder.with_suffix(".log").open("a") as log:
            return folder, subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode

    with ThreadPoolExecutor(jobs) as pool:
        done = track(pool.map(train, todo), "training", total=len(todo), console=Console(stderr=True))
        return [folder for folder, code in done if code]


if __name__ == "__main__":
    sys.exit(main())
