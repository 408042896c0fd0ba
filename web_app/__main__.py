"""`python -m web_app`: serve, work, keep keys, make the feedback's rows again, check what was corrected.

Each reads the settings first. What goes wrong is one sentence on standard error and an exit code: 2 for a wrong
configuration, 3 for unusable weights, 1 for anything else.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from utils.config import Settings, load_settings, read_value
from utils.errors import ConfigError, TelltaleError, WeightsError
from utils.log import configure_logging
from utils.weights import current_speech, current_version, weights_root
from web_app.auth.keys import DEFAULT_SCOPES, SCOPES, create_key, list_keys, revoke_key
from web_app.db.migrations import migrate, told
from web_app.jobs.broker import ROLES, read_roles
from web_app.jobs.shared import Instance
from web_app.paths import PRIVATE
from web_app.reports.keys import ReportKeys

EXIT_UNABLE = 1
EXIT_CONFIG = 2
EXIT_WEIGHTS = 3


def main(arguments: list[str] | None = None) -> int:
    """Run one command; see `--help`.

    Returns:
        The exit code: 0 after a clean end; serving returns 1 if the address cannot be listened on, working 75 when a
        fresh worker shall take over.
    """
    given = _parser().parse_args(arguments)
    try:
        return int(given.run(given))
    except TelltaleError as error:
        print(error, file=sys.stderr)
        codes = {ConfigError: EXIT_CONFIG, WeightsError: EXIT_WEIGHTS}
        return next((code for kind, code in codes.items() if isinstance(error, kind)), EXIT_UNABLE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m web_app", description="Telltale's server.")
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", type=Path, help="configuration file; config.ini by default")

    serve = commands.add_parser("serve", parents=[shared], help="the web server with its worker")
    serve.add_argument("--host", help="address to listen on; [server] host by default")
    serve.add_argument("--port", type=int, help="port to listen on; [server] port by default")
    serve.add_argument("--no-worker", action="store_true", help="serve only; run `python -m web_app worker` yourself")
    serve.set_defaults(run=_serve)

    worker = commands.add_parser("worker", parents=[shared], help="a worker beside a server on the same instance")
    worker.add_argument("--worker-id", help="name in the database; made up by default")
    worker.add_argument(
        "--queues", default=",".join(ROLES), metavar="NAMES", help=f"with celery: some of {', '.join(ROLES)}"
    )
    worker.add_argument("--supervised", action="store_true", help="end when standard input, the parent's pipe, ends")
    worker.set_defaults(run=_worker)

    keys = commands.add_parser("keys", parents=[shared], help="API keys").add_subparsers(dest="task", required=True)
    create = keys.add_parser("create", help="make a key and show it once")
    create.add_argument("name", help="for people: which program or person it is for")
    create.add_argument("--scopes", default=DEFAULT_SCOPES, help=f"of {', '.join(SCOPES)}; {DEFAULT_SCOPES} by default")
    create.add_argument("--days", type=int, default=0, help="valid for so many days; for ever by default")
    create.set_defaults(run=_create_key)
    keys.add_parser("list", help="show all keys without their secrets").set_defaults(run=_list_keys)
    revoke = keys.add_parser("revoke", help="end a key")
    revoke.add_argument("public", help="the part between tt_ and the next _")
    revoke.set_defaults(run=_revoke_key)

    rotate = commands.add_parser("rotate-key", parents=[shared], help="replace the key that reports are signed with")
    rotate.set_defaults(run=_rotate_key)

    rebuild = commands.add_parser("rebuild", parents=[shared], help="the feedback's rows from feedback_log.jsonl")
    rebuild.set_defaults(run=_rebuild)

    check = commands.add_parser(
        "check-corrections", parents=[shared], help="hold the version in use against every accepted vote"
    )
    check.set_defaults(run=_check_corrections)
    return parser


def _serve(given: argparse.Namespace) -> int:
    from web_app.app import create_app
    from web_app.serve import serve

    settings = _started(given)
    asked = {name: getattr(given, name) for name in ("host", "port") if getattr(given, name) is not None}
    chosen = {name: read_value("server", name, str(value)) for name, value in asked.items()}
    settings = dataclasses.replace(settings, server=dataclasses.replace(settings.server, **chosen))
    return serve(create_app(settings), with_worker=not given.no_worker)


def _worker(given: argparse.Namespace) -> int:
    from web_app.worker import end_process, work  # not for the other commands: it brings the learning

    roles = read_roles(given.queues)
    end_process(work(_started(given), worker_id=given.worker_id, supervised=given.supervised, roles=roles))


def _create_key(given: argparse.Namespace) -> int:
    scopes = [scope.strip() for scope in given.scopes.split(",") if scope.strip()]
    with _instance(given) as instance:
        print(create_key(instance.database, given.name, scopes, given.days))
    print("This is shown only now. Send it as `Authorization: Bearer KEY`.", file=sys.stderr)
    return 0


def _list_keys(given: argparse.Namespace) -> int:
    with _instance(given) as instance:
        for line in list_keys(instance.database):
            print(line)
    return 0


def _revoke_key(given: argparse.Namespace) -> int:
    with _instance(given) as instance:
        revoke_key(instance.database, given.public)
    print(f"{given.public} is revoked.")
    return 0


def _rotate_key(given: argparse.Namespace) -> int:
    """Safe beside a running server, which takes the new key at once."""
    with _instance(given) as instance:
        path = instance.paths.report_keys
        instance.shared.once(path, lambda: ReportKeys.of(path))
        print(f"Reports are signed with the key {ReportKeys.of(path).rotate()} from now on.")
        instance.shared.again(path)
    return 0


def _rebuild(given: argparse.Namespace) -> int:
    """Safe beside a running server: only what differs is written, and damaged lines are skipped and named."""
    from web_app.feedback.votes import reconcile

    with _instance(given) as instance:
        try:
            done = reconcile(instance)
        except OSError as error:
            print(f"{instance.paths.feedback_log} cannot be read: {error}", file=sys.stderr)
            return EXIT_UNABLE
    for line in done.damaged:
        print(f"line {line.number} is skipped: {line.why}", file=sys.stderr)
    print(
        f"{done.standing} votes stand; {done.written} rows written, {done.removed} removed, "
        f"{len(done.damaged)} damaged lines skipped"
    )
    if done.unlogged:
        print(f"{done.unlogged} rows have no line in the log; they are kept", file=sys.stderr)
    return 0


def _check_corrections(given: argparse.Namespace) -> int:
    """A line for each accepted vote, those that are lost first; 1 where one is."""
    from utils.feedback.cached_judge import check_items
    from web_app.feedback.training import accepted_items, count_corrections, list_corrections, note

    with _instance(given) as instance:
        with instance.database.read() as session:
            items = accepted_items(session, instance.paths)
        version = current_version(instance.settings) or ""
        said = check_items(items, weights_root(instance.settings), version, current_speech(instance.settings))
        if items and not any(each.outcome for each in said):
            raise TelltaleError("No features are here to check by; run this where the worker with `learning` runs.")
        with instance.database.write() as session:
            note(session, version, said)
            every = list_corrections(session)
            for row, today in every:
                then, now = f"{row.prediction} ({row.model_version})", today.prediction or "not known"
                print(f"{today.state:8} {row.media_sha256[:12]} is {row.actual}: {then}, now {now}")
    counts = count_corrections(every)
    print(f"{version}: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    return EXIT_UNABLE if counts["lost"] else 0


def _started(given: argparse.Namespace) -> Settings:
    """The settings of a process that stays, every key of which somebody has chosen; logging is set up by them."""
    settings = load_settings(given.config, complete=True)
    configure_logging(settings.server.log_level, settings.server.log_format)
    return settings


@contextlib.contextmanager
def _instance(given: argparse.Namespace) -> Iterator[Instance]:
    """The instance with its database brought up to date; damage that shows only in the block is told as well."""
    with contextlib.closing(Instance.of(load_settings(given.config))) as instance, told(instance.database):
        instance.paths.create()
        migrate(instance.database)
        yield instance


if __name__ == "__main__":
    os.umask(PRIVATE)
    sys.exit(main())
