"""The server of the contenders that are ASGI applications: `uvicorn[standard]`, as it advises.

With it come uvloop and httptools where there are any, and uvicorn's own WebSockets on top of
`websockets`. https://uvicorn.dev/installation/
"""

from __future__ import annotations

from typing import Any

import uvicorn

__all__ = ["serve"]


def serve(application: Any, port: int) -> None:
    """Serve until killed. Errors are logged, and nothing else."""
    uvicorn.run(application, host="127.0.0.1", port=port, log_level="error", access_log=False)
