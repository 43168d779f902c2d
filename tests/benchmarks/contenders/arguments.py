"""What every contender is told: its name, its port, the Redis that both of its processes share."""

from __future__ import annotations

import argparse

__all__ = ["Arguments"]


class Arguments(argparse.Namespace):
    """The command line of one server process. Raises `SystemExit` if it is wrong."""

    name: str
    port: int
    redis: str

    def __init__(self) -> None:
        super().__init__()
        parser = argparse.ArgumentParser()
        parser.add_argument("--name", required=True, help="of this server")
        parser.add_argument("--port", type=int, required=True)
        parser.add_argument("--redis", required=True, help="its URL")
        parser.parse_args(namespace=self)
