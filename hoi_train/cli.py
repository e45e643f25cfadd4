"""The command ``hoi-train``: train, evaluate and compare runs, predict with them, and look at configurations.

What takes long to import is imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

OVERRIDE = re.compile(r"^(--)?[A-Za-z_][\w.-]*=")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code: 0, 2 after a user error, 130 or 143 after a signal."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    overrides = [a for a in given if OVERRIDE.match(a)] if given[:1] in (["train"], ["config"]) else []
    parsed = parser.parse_args([a for a in given if a not in overrides])
    parsed.overrides = overrides + getattr(parsed, "override", [])  # others are refused by name
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hoi_train").setLevel(logging.INFO)
    try:
        code: int = parsed.command(parsed)
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # a full or read-only disk: the message names the path
        print(f"hoi-train: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        from hoi_train.core.records import UserError

        if not isinstance(error, UserError):
            raise
        print(f"hoi-train: {error}", file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hoi-train", description="Train video models on long-tailed actions.")
    parser.add_argument("--version", action="version", version=version("hoi_train"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a run, or go on with it")
    train.add_argument("config", type=Path, help="configuration file")
    train.add_argument("override", nargs="*", help="key=value, for example loss.tau=1.5")
    train.set_defaults(command=_train)

    evaluate = commands.add_parser("evaluate", help="evaluate a run's checkpoint on a split")
    evaluate.add_argument("run", type=Path, help="run directory")
    evaluate.add_argument("--split", choices=("train", "val", "test"), default="test")
    evaluate.add_argument("--checkpoint", choices=("best", "last"), default="best")
    evaluate.add_argument(
        "--fit-thresholds", action="store_true", help="fit per-class thresholds on val and write them to the run"
    )
    evaluate.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="detections.parquet: the pairs that a detector found, in place of the annotated ones",
    )
    evaluate.set_defaults(command=_evaluate)

    predict = commands.add_parser("predict", help="predict a video: JSON lines and a film")
    predict.add_argument("run", type=Path, help="run directory; its data need not be there")
    predict.add_argument("video", type=Path, help="video file")
    predict.add_argument("--boxes", type=Path, help="JSON file of the persons and objects, for a run of pair tasks")
    predict.add_argument("--out", type=Path, help="file of the JSON lines; the standard output if not given")
    predict.add_argument("--video-out", type=Path, help="mp4 file of the video with the predictions")
    predict.add_argument("--checkpoint", choices=("best", "last"), default="best")
    predict.add_argument("--start", type=float, metavar="SECONDS")
    predict.add_argument("--end", type=float, metavar="SECONDS")
    predict.add_argument(
        "--every",
        type=int,
        metavar="FRAMES",
        help="from one key frame of pairs to the next (a second if not given); or length of a clip (all if not given)",
    )
    predict.add_argument("--top", type=int, default=5, metavar="K", help="classes to list for each task (5)")
    predict.set_defaults(command=_predict)

    compare = commands.add_parser("compare", help="compare runs in a table and a plot")
    compare.add_argument("runs", type=Path, nargs="+", help="run directories")
    compare.add_argument("--split", choices=("val", "test"), default="test")
    compare.add_argument("--task", help="all tasks if not given; --history shows one")
    compare.add_argument(
        "--best", metavar="METRIC", help="take each run's best epoch by recall_macro, map … (with --split val)"
    )
    compare.add_argument("--plot", type=Path, help="write a PNG with the recall of every class")
    compare.add_argument("--history", type=Path, help="write a PNG with loss and recall over the epochs (validation)")
    compare.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    compare.set_defaults(command=_compare)

    _add_config(commands.add_parser("config", help="show, check or describe configurations"))
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, text, command in (
        ("show", "print a configuration with every default written out", _show),
        ("check", "check a configuration, and its manifest if it is there", _check),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("config", type=Path)
        action.add_argument("override", nargs="*", help="key=value, for example loss.tau=1.5")
        action.set_defaults(command=command)
    actions.add_parser("schema", help="print the JSON schema of all configurations").set_defaults(command=_schema)


def _train(arguments: argparse.Namespace) -> int:
    from hoi_train.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    from hoi_train.core.ranks import leave_ranks
    from hoi_train.engine.train import train

    code = train(config)
    leave_ranks()
    return code


def _evaluate(arguments: argparse.Namespace) -> int:
    from hoi_train.core.ranks import leave_ranks
    from hoi_train.core.records import UserError
    from hoi_train.inference.results import evaluate_detected, evaluate_run
    from hoi_train.reports.evaluation import show_result

    given = (arguments.run, arguments.split, arguments.checkpoint)
    if arguments.boxes is not None and arguments.fit_thresholds:
        raise UserError("--fit-thresholds: thresholds are fitted with the annotated boxes; leave out --boxes")
    if arguments.boxes is None:
        result = evaluate_run(*given, fit=arguments.fit_thresholds)
    else:
        result = evaluate_detected(*given, arguments.boxes)
    if result.rank == 0:
        show_result(result)
    leave_ranks()
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    from hoi_train.inference.predict import predict

    return predict(
        arguments.run,
        arguments.video,
        boxes=arguments.boxes,
        out=arguments.out,
        film=arguments.video_out,
        which=arguments.checkpoint,
        start=arguments.start,
        end=arguments.end,
        every=arguments.every,
        top=arguments.top,
    )


def _compare(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from hoi_train.reports.tables import compare, markdown, rows

    chosen = {"task": arguments.task, "split": arguments.split, "best": arguments.best}
    if arguments.markdown:
        print(markdown(rows(arguments.runs, **chosen)))
    else:
        Console().print(compare(arguments.runs, **chosen))
    if arguments.plot:
        from hoi_train.reports.plots import per_class_recall

        per_class_recall(arguments.runs, arguments.plot, **chosen)
        print(f"recall of every class: {arguments.plot}")
    if arguments.history:
        from hoi_train.reports.plots import history

        history(arguments.runs, arguments.history, task=arguments.task)
        print(f"history: {arguments.history}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    import yaml

    from hoi_train.config import load_config

    print(yaml.safe_dump(load_config(arguments.config, arguments.overrides).plain(), sort_keys=False), end="")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from hoi_train.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    if not config.data.manifest.is_file():
        print(f"{arguments.config}: sound; {config.data.manifest} is not there, so tasks and classes are not checked")
        return 0
    from hoi_train.engine.experiment import check

    check(config)
    print(f"{arguments.config}: sound, and it fits {config.data.manifest}")
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from hoi_train.config import RunConfig

    print(json.dumps(RunConfig.model_json_schema(), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
