"""The kernel in which every notebook is executed, by `make run` as by the tests."""

import os
import sys
import tempfile
from pathlib import Path
from uuid import uuid4

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from traitlets import default


class ThisPython(AsyncKernelManager):
    """A kernel of the interpreter that runs this file, whatever kernels the user has installed."""

    kernel_spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "--log-level=40"]
        + ["-f", "{connection_file}"],
        display_name="Python 3 (ipykernel)",
        language="python",
    )

    @default("transport")
    def sockets(self) -> str:
        """Files, where there are such: kernels that start at once can be given the same port.

        Their names may have 104 characters, of which 24 are ours.
        """
        short = len(os.fsencode(tempfile.gettempdir())) < 80
        return "ipc" if os.name == "posix" and short else "tcp"

    @default("ip")
    def address(self) -> str:
        ours = Path(tempfile.gettempdir(), f"kernel-{uuid4().hex[:12]}")
        return str(ours) if self.transport == "ipc" else "127.0.0.1"
