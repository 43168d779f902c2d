"""The command line: play a scenario, serve a game, write the course as pages, and more."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import fields
from io import TextIOWrapper
from pathlib import Path

from wsdemo.brokers import SECONDS_TO_KEEP
from wsdemo.cluster import BROKERS
from wsdemo.compare import compare
from wsdemo.ledger import ledger
from wsdemo.limits import Limits
from wsdemo.protocol import check_name
from wsdemo.scenarios import SCENARIOS
from wsdemo.serve import (
    REDIS_VARIABLE,
    SECRET_VARIABLE,
    Settings,
    join_secret,
    serve,
    shared_redis,
)
from wsdemo.tokens import sign
from wsdemo.trace import save_traces

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command. Returns the process's exit status: 0, or 1 with the reason on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a pipe's encoding, on Windows, has no “→”
            stream.reconfigure(errors="replace")
    asked = _parser().parse_args(arguments)
    try:
        status: int = asked.command(asked)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"wsdemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m wsdemo", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_run(commands.add_parser("run", help="run a scenario and print who heard and missed what"))
    _add_serve(
        commands.add_parser(
            "serve",
            help="run one game server until SIGTERM",
            description="Run one game server until SIGTERM or Ctrl+C, on Windows also Ctrl+Break "
            "(CTRL_BREAK_EVENT). Then it sends its players away, and ends with 0.",
        )
    )
    _add_token(commands.add_parser("token", help="print a token by which a player may join a game"))
    _add_site(
        commands.add_parser("site", help="write the course as web pages, for no kernel and no net")
    )
    doctor = commands.add_parser("doctor", help="say what this machine has and lacks")
    doctor.set_defaults(command=_doctor)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", help=f"one of: {', '.join(SCENARIOS)}")
    parser.add_argument(
        "--broker",
        action="append",
        metavar="BROKER",
        help=f"one of: {', '.join(BROKERS)}; may be given several times (default: all)",
    )
    parser.add_argument(
        "--redis",
        help='"fake", "embedded" or a URL (default: what WSDEMO_REDIS says, or fake)',
    )
    parser.add_argument(
        "--processes", action="store_true", help="run each server in a process of its own"
    )
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="save what happened to this file"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="save the animation to this file, a web page"
    )
    parser.set_defaults(command=_run)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="the server's own, as in A")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--broker", default="pubsub", help="default: pubsub")
    parser.add_argument(
        "--redis",
        default="",
        metavar="URL",
        help=f"of the Redis that all servers share (default: what {REDIS_VARIABLE} says, which is "
        "the place for one with a password: others can read a command line)",
    )
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="of web pages that may connect, as in https://example.org; may be given several times",
    )
    parser.add_argument(
        "--game",
        action="append",
        default=[],
        help="that may be played here; may be given several times (default: any)",
    )
    parser.add_argument(
        "--join-secret-file",
        type=Path,
        metavar="FILE",
        help=f"with the secret of players' tokens (default: what {SECRET_VARIABLE} says)",
    )
    for limit in fields(Limits):
        parser.add_argument(
            _option(limit.name),
            type=type(limit.default),
            default=limit.default,
            metavar="N",
            help=f"{limit.metadata['words']} (default: {limit.default})",
        )
    parser.add_argument(
        "--drain",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="over which players are sent away at the end (default: 5)",
    )
    parser.add_argument(
        "--seconds-to-keep",
        type=float,
        default=SECONDS_TO_KEEP,
        metavar="SECONDS",
        help="that stream and queue keep a game which nobody plays "
        f"(default: {SECONDS_TO_KEEP:.0f}, a day)",
    )
    parser.set_defaults(command=_serve)


def _add_token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--game", required=True)
    parser.add_argument("--player", required=True)
    parser.add_argument(
        "--seconds", type=float, default=3600.0, help="for which it is good (default: 3600)"
    )
    parser.add_argument("--join-secret-file", type=Path, metavar="FILE", help="as for serve")
    parser.set_defaults(command=_token)


def _add_site(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--notebooks", type=Path, default=Path("notebooks"), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("site"), metavar="FOLDER")
    parser.set_defaults(command=_site)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _run(asked: argparse.Namespace) -> int:
    brokers = asked.broker or BROKERS
    options = {"redis": asked.redis, "processes": asked.processes}
    runs = asyncio.run(compare(asked.scenario, brokers, **options))
    print(ledger(runs))
    if asked.trace:
        save_traces(asked.trace, (run.trace for run in runs.values()))
        print(f"\nSaved to {asked.trace}")
    if asked.html:
        from wsdemo.stage import Stage  # only here: a server process does not carry what draws

        Stage(runs).save_html(asked.html)
        print(f"\nSaved to {asked.html}")
    return 0


def _serve(asked: argparse.Namespace) -> int:
    settings = Settings(
        name=asked.name,
        host=asked.host,
        port=asked.port,
        broker=asked.broker,
        redis=shared_redis(asked.redis),
        origins=asked.origin,
        games=asked.game,
        drain=asked.drain,
        seconds_to_keep=asked.seconds_to_keep,
        limits=Limits(**{limit.name: getattr(asked, limit.name) for limit in fields(Limits)}),
        join_secret=join_secret(asked.join_secret_file),
    )
    asyncio.run(serve(settings))
    return 0


def _token(asked: argparse.Namespace) -> int:
    secret = join_secret(asked.join_secret_file)
    if not secret:
        raise ValueError(f"there is no secret in {SECRET_VARIABLE}, and no --join-secret-file")
    game, player = check_name(asked.game, "game"), check_name(asked.player, "player")
    print(sign(secret, game, player, asked.seconds))
    return 0


def _site(asked: argparse.Namespace) -> int:
    from nbclient.exceptions import CellExecutionError

    from wsdemo.site import build

    notebooks = sorted(asked.notebooks.glob("*.ipynb"))
    if not notebooks:
        raise ValueError(f"there is no notebook in {asked.notebooks}; name a folder: --notebooks")
    try:
        build(notebooks, asked.out, print)
    except CellExecutionError as error:
        raise RuntimeError(f"a cell failed: {error.ename}: {error.evalue}") from error
    print(f"Saved to {asked.out / 'index.html'}")
    return 0


def _doctor(asked: argparse.Namespace) -> int:
    from wsdemo.doctor import examine

    findings = asyncio.run(examine())
    for finding in findings:
        print(finding)
    return 0 if all(finding.ok or not finding.needed for finding in findings) else 1
