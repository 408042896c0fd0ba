"""Analyse pictures, videos and recordings: `python inference.py photo.jpg clip.mp4 voice.wav folder/`, or from Python.

Both ways lead through `utils.detection.pipeline.analyse`, as the server does. Heavy modules are imported inside the
functions that need them, so that `--help` answers at once. docs/cli.md explains the output and the options.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from utils import errors
from utils.config import EXPERTS, Settings, load_settings, parse_experts, read_value
from utils.detection import cli
from utils.detection.cli import Collected, FileResult, check_readable
from utils.errors import ConfigError, MediaError, ReportError, TelltaleError, UnsupportedMediaError
from utils.files import replace_file
from utils.log import configure_logging, escape

if TYPE_CHECKING:
    from utils.types import Report

EXIT_OK, EXIT_SOME_FAILED, EXIT_USAGE, EXIT_UNUSABLE, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
EXIT_OTHER_SCORE, EXIT_OTHER_FILE, EXIT_NO_REPORT, EXIT_SIGNATURE = 4, 5, 6, 7  # of --verify

EPILOG = """\
exit codes:
  0    every file was analysed (whatever the verdicts)
  1    some files failed, or the output could not be written
  2    the command line is wrong
  3    the weights or the configuration cannot be used, a package is missing, or the self-test failed
  4    --verify: it is the same file, but the score or the verdict differs
  5    --verify: the report is about another file
  6    --verify: this is no report, or of an unknown version
  7    --verify: the report was changed since it was signed, or no key of --key has signed it
  130  interrupted; what was finished has been written

examples:
  python inference.py photo.jpg clip.mp4
  python inference.py folder/ 'more/*.webp' --csv --output verdicts.csv
  python inference.py folder/ --jsonl | head -n 1
  python inference.py --verify report.json photo.jpg --key telltale-keys.json
  python inference.py --realtime 0
  python inference.py --selftest
  python inference.py --export telltale-onnx
"""


class DeepfakeDetector:
    """The Python interface: networks loaded once, then any number of files.

    Args:
        device: `cpu`, `cuda` or `auto`; None follows the configuration.
        experts: names out of `EXPERTS` to load; None follows the configuration.
        threshold: calibrated probability of fake, 0.05..0.95, from which a verdict leans to fake; None follows the
            configuration.
        config: an ini file like `config.ini`, or settings that were read before; None reads the repository's own.

    Raises:
        ConfigError: the configuration or one of the arguments is not valid.
        WeightsError: the weights are missing or do not match their checksums.
    """

    def __init__(
        self,
        device: str | None = None,
        experts: Sequence[str] | None = None,
        threshold: float | None = None,
        config: Path | str | Settings | None = None,
    ) -> None:
        from utils.detection.pipeline import load_analyser

        self.settings = read_settings(config, device=device, experts=experts, threshold=threshold)
        chosen = None if experts is None else tuple(experts)
        self.analyser = load_analyser(self.settings, device=device, experts=chosen)

    def predict_image(self, path: Path | str) -> Report:
        """Analyse one picture.

        Raises:
            UnsupportedMediaError: it is a video, or no format that we read.
            TelltaleError: it cannot be analysed; the code says why.
        """
        return self._predict_kind(Path(path), "image", "no picture; use predict_video or predict_audio")

    def predict_video(self, path: Path | str) -> Report:
        """Analyse one video.

        Raises:
            UnsupportedMediaError: it is a picture, or no format that we read.
            TelltaleError: it cannot be analysed; the code says why.
        """
        return self._predict_kind(Path(path), "video", "no video; use predict_image or predict_audio")

    def predict_audio(self, path: Path | str) -> Report:
        """Analyse one recording.

        Raises:
            UnsupportedMediaError: it is a picture or a format of video, or none that we read.
            TelltaleError: it cannot be analysed; the code says why.
        """
        return self._predict_kind(Path(path), "audio", "no recording; use predict_image or predict_video")

    def batch_predict(self, paths: Iterable[Path | str]) -> list[FileResult]:
        """Analyse many files; one that fails is a `FileResult` with its error and does not stop the rest."""
        return list(self.iter_predict(paths))

    def iter_predict(
        self, paths: Iterable[Path | str], progress: Callable[[Path, str, float], None] | None = None
    ) -> Iterator[FileResult]:
        """Like `batch_predict`, one result as soon as it is there; the next files are decoded meanwhile.

        A file with the content of an earlier one gets that one's report.

        Args:
            paths: files, pictures and videos mixed.
            progress: called with the file, the stage and the fraction 0..1 of this file.
        """
        from utils.detection.batch import analyse_files

        yield from analyse_files(map(Path, paths), self.analyser, progress=progress)

    def _predict_kind(self, path: Path, kind: str, advice: str) -> Report:
        from utils.detection.pipeline import analyse
        from utils.media.sniff import SNIFF_BYTES, sniff

        check_readable(path)
        with path.open("rb") as stream:
            found = sniff(stream.read(SNIFF_BYTES))
        report = analyse(path, self.analyser) if found.kind == kind or found.moves else None
        if report is None or report.media.kind != kind:
            raise UnsupportedMediaError(f"{escape(path.name)} is {advice}.")
        return report


def read_settings(
    config: Path | str | Settings | None = None,
    *,
    device: str | None = None,
    experts: Sequence[str] | None = None,
    threshold: float | None = None,
) -> Settings:
    """The settings with what the caller chose, which goes before the environment and the file.

    Raises:
        ConfigError: a value is unknown or out of range.
    """
    given: dict[str, float | str | None] = {"device": device, "threshold": threshold}
    given["experts"] = None if experts is None else ",".join(experts)
    overrides = {f"TELLTALE_DETECTION__{k.upper()}": str(v) for k, v in given.items() if v is not None}
    if isinstance(config, Settings):
        checked = load_settings(environ=overrides).detection
        chosen = {key: getattr(checked, key) for key, value in given.items() if value is not None}
        return dataclasses.replace(config, detection=dataclasses.replace(config.detection, **chosen))
    return load_settings(None if config is None else Path(config), environ={**os.environ, **overrides})


def build_parser() -> argparse.ArgumentParser:
    """The command line, documented by itself."""
    parser = argparse.ArgumentParser(
        prog="inference.py",
        description="Say whether faces and voices in files look real or fake, and how sure that is.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files, folders, or quoted patterns such as 'a/*.jpg'")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    form.add_argument("--jsonl", action="store_true", help="one line of JSON per file, as soon as it is finished")
    form.add_argument("--csv", action="store_true", help="comma-separated values with a header")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of to standard output")
    parser.add_argument(
        "--threshold",
        type=_checked(partial(read_value, "detection", "threshold")),
        metavar="P",
        help="no verdict is fake below, none real above",
    )
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), help="where the networks run")
    parser.add_argument(
        "--experts", type=_checked(parse_experts), metavar="A,B", help=f"only these of {', '.join(EXPERTS)}"
    )
    parser.add_argument(
        "--recursive", action=argparse.BooleanOptionalAction, default=True, help="enter folders inside folders"
    )
    parser.add_argument("--config", type=Path, metavar="INI", help="another configuration file than config.ini")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no remarks on standard error")
    parser.add_argument("--selftest", action="store_true", help="check weights, decoders and a known pair, and stop")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write the networks as ONNX into a new folder")
    parser.add_argument("--verify", type=Path, metavar="REPORT", help="check a report (JSON) on the one file named")
    parser.add_argument("--key", metavar="KEYS", help="--verify: a server's keys document, or a key's fingerprint")
    parser.add_argument(
        "--realtime", nargs="?", const="0", metavar="SOURCE",
        help="a running score of a camera (its number or /dev/videoN; 0 by default) or of a file; Ctrl-C ends it",
    )  # fmt: skip
    return parser


def _checked(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of a setting as argparse wants it."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(error.detail) from error

    return convert


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; argparse itself leaves with 2 on a wrong command line."""
    parser = build_parser()
    options = parser.parse_args(argv)
    alone = options.selftest or options.realtime is not None or options.export is not None
    if not options.paths and not alone:
        parser.error("name at least one file, folder or pattern (or --selftest)")
    if options.paths and alone:
        parser.error("--selftest, --realtime and --export take no files")
    if options.verify is not None and len(options.paths) != 1:
        parser.error("--verify REPORT takes exactly one file")
    if options.key is not None and options.verify is None:
        parser.error("--key belongs to --verify")
    if options.output is not None and (options.output.is_dir() or not options.output.parent.is_dir()):
        parser.error(f"--output {options.output}: its folder does not exist, or it is a folder itself")
    configure_logging("error" if options.quiet else "warning")
    try:
        if options.verify is not None:
            return _verify(options)
        if options.realtime is not None:
            return _realtime(options)
        if options.export is not None:
            return _export(options)
        return _selftest(options) if options.selftest else _run(options)
    except (TelltaleError, ModuleNotFoundError) as error:
        print(errors.plainly(error), file=sys.stderr)
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        print("Interrupted before anything was finished.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_SOME_FAILED
    except OSError as error:
        print(f"The output cannot be written: {error}.", file=sys.stderr)
        return EXIT_SOME_FAILED


def _run(options: argparse.Namespace) -> int:
    collected = cli.collect_files(options.paths, recursive=options.recursive)
    if collected.passed_over and not options.quiet:
        print(f"Other files in the folders, passed over: {collected.passed_over}.", file=sys.stderr)
    results, interrupted = _analyse_all(options, collected)
    if not (options.jsonl and options.output is None):
        _write(_render(options, results), options.output)
    if interrupted:
        total = len(collected.files) + len(collected.missing)
        print(f"Interrupted: {len(results)} of {total} finished.", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_SOME_FAILED if any(result.error is not None for result in results) else EXIT_OK


def _analyse_all(options: argparse.Namespace, collected: Collected) -> tuple[list[FileResult], bool]:
    """Every result, and whether the user interrupted; JSON lines to standard output are written on the way."""
    results: list[FileResult] = []
    live = options.jsonl and options.output is None

    def add(result: FileResult) -> None:
        results.append(result)
        if live:
            _write(cli.format_json_line(result), None)

    for result in collected.missing:
        add(result)
    if not collected.files:  # nothing to load networks for
        read_settings(options.config)
        return results, False
    from tqdm import tqdm

    visible = sys.stderr.isatty() and not options.quiet
    if visible:
        print("Loading the networks ...", file=sys.stderr)
    try:
        detector = DeepfakeDetector(options.device, options.experts, options.threshold, options.config)
        with tqdm(total=len(collected.files), disable=not visible, leave=False, dynamic_ncols=True) as bar:

            def show(path: Path, stage: str, fraction: float) -> None:
                bar.set_postfix_str(f"{escape(path.name)}: {stage}")

            for result in detector.iter_predict(collected.files, show):
                bar.clear()
                add(result)
                bar.update()
    except KeyboardInterrupt:
        return results, True
    return results, False


def _render(options: argparse.Namespace, results: Sequence[FileResult]) -> str:
    if options.json:
        return cli.format_json(results)
    if options.jsonl:
        return "".join(map(cli.format_json_line, results))
    return cli.format_csv(results) if options.csv else cli.format_table(results)


def _write(text: str, output: Path | None) -> None:
    if output is not None:
        replace_file(output, text.encode())
        return
    stream: TextIO = sys.stdout
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))  # a C locale cannot print every name
    stream.flush()


def _verify(options: argparse.Namespace) -> int:
    from utils.detection.verify import missing_settings, verify_report
    from utils.signatures import read_keys

    try:
        trusted = None if options.key is None else read_keys(options.key)
        outcome = verify_report(options.verify, Path(options.paths[0]), read_settings(options.config), trusted)
    except ReportError as error:
        print(error, file=sys.stderr)
        return EXIT_NO_REPORT
    except MediaError as error:
        print(error, file=sys.stderr)
        return EXIT_SOME_FAILED
    unnamed = missing_settings(outcome.claim) if outcome.claim else ()
    if unnamed and not options.quiet:
        print(f"The report does not name {', '.join(unnamed)}; the configuration's are taken.", file=sys.stderr)
    _write("".join(f"{escape(sentence)}\n" for sentence in outcome.sentences), options.output)
    if not outcome.signature.holds:
        return EXIT_SIGNATURE
    if outcome.reproduced:
        return EXIT_OK
    return EXIT_OTHER_SCORE if outcome.same_file else EXIT_OTHER_FILE


def _realtime(options: argparse.Namespace) -> int:
    from utils.detection.realtime import format_moment, watch

    detector = DeepfakeDetector(options.device, options.experts, options.threshold, options.config)
    try:
        for moment in watch(options.realtime, detector.analyser):
            line = json.dumps(dataclasses.asdict(moment)) if options.jsonl else format_moment(moment)
            _write(f"{line}\n", None)
    except KeyboardInterrupt:  # the usual end of a camera
        return EXIT_OK
    except MediaError as error:
        print(error, file=sys.stderr)
        return EXIT_SOME_FAILED
    return EXIT_OK


def _export(options: argparse.Namespace) -> int:
    errors.require_torch("Exporting networks")
    from utils.detection.export import export_version

    version = export_version(read_settings(options.config), options.export)
    if not options.quiet:
        print(f"Version {version.name} is in {escape(str(options.export))}; its README.md says how to use it.")
    return EXIT_OK


WELL = "All is well: Telltale can be used."


def _selftest(options: argparse.Namespace) -> int:
    from utils.detection.selftest import run_selftest

    settings = read_settings(options.config, device=options.device, threshold=options.threshold)
    checks = run_selftest(settings, experts=options.experts)
    lines = [f"{'ok' if c.passed else 'FAIL' if c.passed is False else 'skip':4}  {c.name}: {c.text}" for c in checks]
    failed = sum(c.passed is False for c in checks)
    skipped = sum(c.passed is None for c in checks)
    well = f"{skipped} of {len(checks)} checks could not be made; the rest is well." if skipped else WELL
    lines.append(f"{len(checks)} checks, {failed} failed." if failed else well)
    _write("\n".join(map(escape, lines)) + "\n", options.output)
    return EXIT_UNUSABLE if failed else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
