"""Run every notebook from a fresh kernel and store what it puts out: `make notebooks`.

Widget state is left out: a stage's PNG and words are what a reader without a kernel sees. The
README's picture is made here too, from a run of its own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from wsdemo import compare, timeline

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def run(path: Path) -> Any:
    """The notebook at `path`, executed."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook,
        timeout=60,
        kernel_name=KERNEL["name"],
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        store_widget_state=False,
    )
    return client.execute()


def tidy(notebook: Any) -> Any:
    """Without what differs from run to run, or belongs to a kernel that is gone."""
    about = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    notebook.metadata = nbformat.from_dict(about)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data.pop(WIDGET, None)
    return notebook


def main() -> None:
    """Store the notebooks that are named on the command line, or all."""
    os.environ["WSDEMO_REDIS"] = "fake"
    for path in [Path(name) for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb")):
        print(f"running {path.name}", flush=True)
        nbformat.write(tidy(run(path)), path)  # type: ignore[no-untyped-call]
    runs = asyncio.run(compare("p1_moves_to_b"))
    (NOTEBOOKS / "p1_moves_to_b.png").write_bytes(timeline(runs)._repr_png_())


if __name__ == "__main__":
    main()
