"""Cells run in a real kernel: twice, interrupted, opened again, restarted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel
from jupyter_client.session import Session

from tests.conftest import PATIENCE
from wsdemo.notebook import hear_while_awaiting

STARTING = 60.0  # seconds that a kernel may take

OPEN = 'cluster = await open_cluster(broker="pubsub", redis="embedded")'
STATE = """
import asyncio, gc, psutil
from wsdemo import Cluster
me = psutil.Process()
def mine():
    "The kernel's ports and processes, and the tasks that belong to a cluster."
    gone = (psutil.STATUS_ZOMBIE,)
    return (
        sorted(c.laddr.port for c in me.net_connections("tcp") if c.status == psutil.CONN_LISTEN),
        sorted(p.name() for p in me.children(recursive=True) if p.status() not in gone),
        sorted(
            t.get_name() for t in asyncio.all_tasks()
            if "wsdemo" in str(t.get_coro()) or "websockets" in str(t.get_coro())
        ),
    )
async def for_ever():
    "Waits as a cell does in which something happens: ipykernel looks for an interrupt then."
    while True:
        await asyncio.sleep(0.01)
async def clean_up():
    for thing in gc.get_objects():
        if type(thing) is Cluster:
            await thing.stop()
"""


class Notebook:
    """A kernel, and cells that are run in it as a front end does."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    def start(self, code: str, cell: str | None = None) -> str:
        """Ask for the cell to be run; the id of the request."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        message = self.client.session.msg("execute_request", content)
        if cell is not None:  # as JupyterLab does
            message["metadata"]["cellId"] = cell
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def finish(self, request: str) -> tuple[str, str]:
        """What the cell printed and its value; and how it ended: "ok", or the error's name."""
        while True:
            reply = self.client.get_shell_msg(timeout=STARTING)
            if reply["parent_header"].get("msg_id") == request:
                break
        text = ""
        while True:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=STARTING)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    text += content["text"]
                case "execute_result":
                    text += content["data"]["text/plain"]
                case "status" if content["execution_state"] == "idle":
                    break
        content = reply["content"]
        return text, content["status"] if content["status"] == "ok" else content["ename"]

    def run(self, code: str, cell: str | None = None) -> str:
        """Run a cell that must not fail; what it printed and its value."""
        text, how = self.finish(self.start(code, cell))
        assert how == "ok", (code, how, text)
        return text

    def wait_for(self, printed: str, request: str, times: int = 1) -> None:
        """Wait until the cell that runs has printed this so many times."""
        while times > 0:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=STARTING)
            if message["parent_header"].get("msg_id") == request:
                times -= message["content"].get("text", "").count(printed)


@contextmanager
def started() -> Iterator[Notebook]:
    """A kernel, from its start to its end."""
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=STARTING)
    try:
        yield Notebook(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.context.destroy()


@pytest.fixture(scope="module")
def kernel() -> Iterator[Notebook]:
    """One kernel for most tests here: starting one takes a second."""
    with started() as notebook:
        yield notebook


@pytest.fixture
def own_kernel() -> Iterator[Notebook]:
    """A kernel for one test, which may end it."""
    with started() as notebook:
        yield notebook


@pytest.fixture
def notebook(kernel: Notebook) -> Iterator[Notebook]:
    """A kernel in which nothing of a cluster runs, before and after."""
    kernel.run("from wsdemo import compare, open_cluster, scenarios" + STATE)
    assert kernel.run("mine()[1:]") == "([], [])"
    kernel.run("ports_before = mine()[0]")
    yield kernel
    kernel.run('await cluster.stop() if "cluster" in globals() else None')
    text = kernel.run("(mine()[0] == ports_before, *mine()[1:])")
    kernel.run("await clean_up(); cluster = None; del cluster")
    assert text == "(True, [], [])"


@pytest.mark.parametrize("ids", ["cell ids", "no cell ids"])
def test_a_cell_run_twice_stops_the_cluster_it_opened_before(notebook: Notebook, ids: str) -> None:
    """As many ports, processes and tasks after the tenth time as after the first."""
    cell = "cell-1" if ids == "cell ids" else None
    notebook.run(OPEN, cell)
    notebook.run('await cluster.join("P1", "P2")', "cell-2")
    notebook.run("first, url = cluster, cluster.url")
    expected = notebook.run("[len(kind) for kind in mine()[:2]]")
    for _ in range(3):
        notebook.run(OPEN, cell)
    assert notebook.run("[len(kind) for kind in mine()[:2]]") == expected
    assert "stopped" in notebook.run("first")
    assert notebook.run("cluster is first, cluster.url == url") == "(False, False)"
    notebook.run('[p1] = await cluster.join("P1"); await p1.send("x"); await cluster.settle()')
    assert notebook.run("p1.heard[0].body") == "'x'"


def test_a_stage_s_cell_run_twice_has_one_stage(notebook: Notebook) -> None:
    """The stage that nobody sees any more follows the cluster no longer; two of one run do."""
    notebook.run(OPEN)
    notebook.run("from wsdemo import Stage\nbefore = len(cluster.trace._watchers)")
    for _ in range(3):
        notebook.run("stage = Stage(cluster); stage", "cell-1")
        assert notebook.run("len(cluster.trace._watchers) - before") == "1"
    notebook.run("stages = [Stage(cluster), Stage(cluster)]", "cell-1")
    assert notebook.run("len(cluster.trace._watchers) - before") == "2"
    notebook.run("[each.close() for each in stages]")
    assert notebook.run("len(cluster.trace._watchers) - before") == "0"


def test_an_edited_cell_is_the_same_cell(notebook: Notebook) -> None:
    """With the front end's id of the cell, its code may change in between."""
    notebook.run(OPEN, "cell-1")
    notebook.run("first = cluster")
    notebook.run(OPEN + "  # edited", "cell-1")
    assert "stopped" in notebook.run("first")


def test_another_cell_leaves_it_alone(notebook: Notebook) -> None:
    """Two cells may have a cluster each."""
    notebook.run(OPEN, "cell-1")
    notebook.run('other = await open_cluster(broker="none")', "cell-2")
    assert "running" in notebook.run("cluster")
    notebook.run("await other.stop()")


@pytest.mark.parametrize("cell", ["cell-1", None])
def test_one_cell_may_open_two(notebook: Notebook, cell: str | None) -> None:
    """The second does not stop the first; running the cell again stops both."""
    code = OPEN + '; other = await open_cluster(broker="none")'
    notebook.run(code, cell)
    assert "running" in notebook.run("cluster")
    assert "running" in notebook.run("other")
    notebook.run("before = cluster, other")
    notebook.run(code, cell)
    assert re.findall("running|stopped", notebook.run("before")) == ["stopped"] * 2
    assert "running" in notebook.run("cluster")
    notebook.run("await other.stop()")


@pytest.mark.parametrize(
    "code",
    [
        'async with open_cluster(redis="embedded") as c:\n'
        '    await c.join("P1", "P2"); print("here", flush=True); await for_ever()',
        "async def wait(cluster):\n"
        '    await cluster.join("P1"); print("here", flush=True); await for_ever()\n'
        'await compare(wait, redis="embedded")',
        OPEN + '\nawait cluster.join("P1"); print("here", flush=True); await for_ever()',
    ],
    ids=["async with", "compare", "await"],
)
def test_an_interrupted_cell_leaves_nothing_in_the_way(notebook: Notebook, code: str) -> None:
    """It ends at once, what it had opened ends, and the first cell works again."""
    notebook.run(OPEN, "cell-1")
    request = notebook.start(code, "cell-2")
    notebook.wait_for("here", request, times=2 if "compare" in code else 1)
    notebook.manager.interrupt_kernel()
    _, how = notebook.finish(request)
    assert how in ("KeyboardInterrupt", "CancelledError")
    if "cluster = " in code:
        notebook.run("await cluster.stop()")
    notebook.run(OPEN, "cell-1")
    notebook.run('await cluster.join("P1", "P2", "P3"); await cluster.settle()')
    assert notebook.run("len(mine()[1])") == "2"  # one Redis, and what guards it


def test_an_interrupt_while_nothing_runs_hurts_no_cluster(notebook: Notebook) -> None:
    """A second click on the stop button does not end Redis, nor cut a player."""
    notebook.run(OPEN, "cell-1")
    notebook.run('p1, p2 = await cluster.join("P1", "P2")')
    notebook.manager.interrupt_kernel()
    notebook.run('await p1.send("x"); await cluster.settle()')
    assert notebook.run("p2.heard[0].body") == "'x'"


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_restart_leaves_no_redis(own_kernel: Notebook, how: str) -> None:
    """A kernel that is restarted, or killed, takes its Redis with it; the first cell works."""
    notebook = own_kernel
    notebook.run("from wsdemo import open_cluster" + STATE)
    notebook.run(OPEN, "cell-1")
    kernel = psutil.Process(int(notebook.run("me.pid")))
    others = kernel.children(recursive=True)
    assert len(others) >= 2
    if how == "kill":
        kernel.kill()
    notebook.manager.restart_kernel(now=how == "kill")
    notebook.client.wait_for_ready(timeout=STARTING)
    _, alive = psutil.wait_procs(others, timeout=PATIENCE)
    assert not alive
    notebook.run("from wsdemo import open_cluster" + STATE)
    notebook.run(OPEN, "cell-1")
    notebook.run('await cluster.join("P1"); await cluster.stop()')


# Messages while a cell awaits, in a kernel that would keep them


class OldKernel:
    """As much of ipykernel 6 as has to do with messages: a queue that a cell holds up."""

    def __init__(self) -> None:
        self.session = Session(key=b"key")
        self.shell_stream = self
        self.comm_manager = self
        self.msg_queue: list[Any] = []
        self.heard: list[str] = []

    def on_recv(self, callback: Callable[[Any], None], copy: bool) -> None:
        self.receive = callback

    def schedule_dispatch(self, dispatch: object, frames: Any) -> None:
        self.msg_queue.append(frames)

    def dispatch_shell(self) -> None: ...

    def comm_msg(self, stream: object, identities: Any, message: dict[str, Any]) -> None:
        self.heard.append(message["content"]["comm_id"])

    def send(self, kind: str, **content: Any) -> None:
        """A message from the front end, as it comes from the wire."""
        message = self.session.msg(kind, content)
        frames = self.session.serialize(message, ident=b"browser")
        self.receive([zmq.Frame(frame) for frame in frames])


def test_an_old_kernel_lets_a_live_stage_s_messages_through(monkeypatch: Any) -> None:
    """They are heard at once, while all others wait their turn, and no longer once it is closed."""
    kernel = OldKernel()
    monkeypatch.setattr("wsdemo.notebook._shell", lambda: SimpleNamespace(kernel=kernel))
    hear_no_more = hear_while_awaiting("ours")
    kernel.send("execute_request", code="1")
    kernel.send("comm_msg", comm_id="another's", data={})
    kernel.send("comm_msg", comm_id="ours", data={})
    assert (kernel.heard, len(kernel.msg_queue)) == (["ours"], 2)
    hear_no_more()
    kernel.send("comm_msg", comm_id="ours", data={})
    assert (kernel.heard, len(kernel.msg_queue)) == (["ours"], 3)
