"""`conch doctor`: what this machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from core.errors import ConchError
from core.settings import Settings


@dataclass(frozen=True)
class Finding:
    """One thing looked at; ``fix`` is empty where nothing needs doing."""

    name: str
    found: str
    fix: str = ""


def examine(settings: Settings, console: Console) -> bool:
    """Prints every finding; True where nothing needs mending."""
    checks: tuple[Callable[[Settings], Finding], ...] = (_python, _numpy, _memory, _disk, _server, _ports, _torch)
    healthy = True
    for check in checks:
        finding = check(settings)
        healthy &= not finding.fix
        mark = "[red]✗[/red]" if finding.fix else "[green]✓[/green]"
        console.print(f"{mark} {finding.name}: {finding.found}", soft_wrap=True)
        if finding.fix:
            console.print(f"    next: {finding.fix}", markup=False)
    return healthy


def _python(settings: Settings) -> Finding:
    right = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding("Python", platform.python_version(), "" if right else "make setup PYTHON=python3.11")


def _numpy(settings: Settings) -> Finding:
    import numpy

    right = int(numpy.__version__.split(".")[0]) < 2
    return Finding("numpy", numpy.__version__, "" if right else ".venv/bin/pip install -c constraints.txt numpy")


def _memory(settings: Settings) -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding("memory", f"{total / 2**30:.1f} GiB", "" if total > 3.5e9 else "use a machine with 4 GiB or more")


def _disk(settings: Settings) -> Finding:
    place = settings.paths.var.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    return Finding(
        f"disk at {place}", f"{free / 1e9:.1f} GB free", "" if free > 2e9 else "free 2 GB, or move paths.var"
    )


def _server(settings: Settings) -> Finding:
    from serving.wheel import check_environment, check_platform, find_server

    try:
        check_platform()
        check_environment()
        return Finding("Triton server", str(find_server().binary))
    except ConchError as error:
        return Finding("Triton server", error.found or error.what, error.next_step or "make setup")


def _ports(settings: Settings) -> Finding:
    serving = settings.serving
    used = []
    for port in (serving.http_port, serving.grpc_port, serving.metrics_port):
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex((serving.host, port)) == 0:
                used.append(str(port))
    fix = "stop what listens there, or choose others: --set serving.grpc_port=9001" if used else ""
    return Finding("ports", f"in use: {', '.join(used)}" if used else "free", fix)


def _torch(settings: Settings) -> Finding:
    import torch

    wants_cuda = settings.train.device.startswith("cuda")
    lacks = wants_cuda and not torch.cuda.is_available()
    return Finding(
        "torch", f"{torch.__version__}, device {settings.train.device}", "use train.device=cpu" if lacks else ""
    )
