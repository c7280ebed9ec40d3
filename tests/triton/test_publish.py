"""The publish protocol on real servers: flips under load, killed publishers and servers, a replica that cannot load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.activations import measure
from core.errors import PublishError
from core.settings import ROOT
from serving.control import Control, Replica, running_replicas
from serving.pointer import model_of, pointer_file, read_pointer
from serving.publish import Publisher
from serving.server import TritonServer
from tests.sealed_release import seal_release
from tests.synthetic_release import Shape
from tests.triton.conftest import settings_in

FULL = bool(os.environ.get("CONCH_FULL"))
STEPS = range(24) if FULL else (9, 20)
"""Steps of an activation at which somebody is killed."""
KILL = """
import os, signal, sys
from pathlib import Path
from serving.publish import Publisher
count = 0
def after(step):
    global count
    if count == int(sys.argv[3]): os.kill(os.getpid(), signal.SIGKILL)
    count += 1
Publisher(Path(sys.argv[1]), "killed", after=after).activate(Path(sys.argv[2]), reason="x", unblessed=True)
"""


def live(var: Path) -> str:
    """What the servers answer: alias and pointer agree, or this fails."""
    pointer = read_pointer(pointer_file(var))
    assert pointer is not None
    for replica in running_replicas(var):
        with Control(replica) as control:
            (own,) = control.recommend(model_of(pointer.stable), ["u5"], [3], [[]])
            assert own.release == pointer.stable
    return pointer.stable


def test_activations_and_rollbacks_under_load_lose_and_mix_nothing() -> None:
    found = measure(cycles=60 if FULL else 2, fresh=10, threads=2)
    assert (found["failed"], found["mixed"], found["errors"]) == (0, 0, [])


def test_a_release_of_another_shape_goes_live_beside_and_rolls_back(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    var = settings.paths.var
    first, other = seal_release(var, 1).path, seal_release(var, 2, shape=Shape(returned=25)).path
    Publisher(var, "test").activate(first, reason="first")
    with TritonServer(settings, free_ports=True) as server:
        Publisher(var, "test").activate(other, reason="longer lists")
        assert server.client().recommend(["u5"], k=25)[0].release == live(var) == "r000002"
        outcome = Publisher(var, "test").rollback(reason="back")
        assert server.client().recommend(["u5"])[0].release == live(var) == "r000001"
        assert outcome.durations_ms["all"] < (1_000 if FULL else 5_000)


@pytest.mark.parametrize("whom", ["publisher", "server"] if FULL else ["publisher"])
def test_sigkill_at_a_step_ends_in_old_or_new_and_a_rerun_converges(tmp_path: Path, whom: str) -> None:
    settings = settings_in(tmp_path)
    var = settings.paths.var
    releases = [seal_release(var, version).path for version in range(1, len(STEPS) + 2)]
    Publisher(var, "test").activate(releases[0], reason="first")
    for number, (step, release) in enumerate(zip(STEPS, releases[1:], strict=True), 1):
        allowed = {f"r{number:06d}", f"r{number + 1:06d}"}
        with TritonServer(settings, free_ports=True) as server:
            if whom == "publisher":
                command = [sys.executable, "-c", KILL, str(var), str(release), str(step)]
                subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
            else:
                count = iter(range(1_000))
                kill = lambda name, at=step, pid=server.pid, count=count: (  # noqa: E731
                    os.kill(pid, signal.SIGKILL) if next(count) == at else None
                )
                try:
                    Publisher(var, "test", after=kill).activate(release, reason="x")
                except PublishError as error:
                    assert error.what  # noqa: PT017
            if whom == "publisher":
                assert live(var) in allowed
        with TritonServer(settings, free_ports=True) as server:
            assert server.release_id == live(var)
            assert server.release_id in allowed
            Publisher(var, "test").activate(release, reason="again", unblessed=True)
            assert server.client().recommend(["u5"])[0].release == live(var) == f"r{number + 1:06d}"


def test_one_replica_that_cannot_load_keeps_the_old_release_everywhere(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    var = settings.paths.var
    first, second = seal_release(var, 1).path, seal_release(var, 2).path
    Publisher(var, "test").activate(first, reason="first")
    with TritonServer(settings, free_ports=True), TritonServer(settings, free_ports=True):
        good = running_replicas(var)
        assert len(good) == 2
        broken = Replica(good[0].repository, "127.0.0.1:1", load_seconds=2)
        with pytest.raises(PublishError, match="did not go live"):
            Publisher(var, "test", [replace(one, load_seconds=60) for one in good] + [broken]).activate(
                second, reason="x"
            )
        assert live(var) == "r000001"
        for replica in good:
            with Control(replica) as control:
                ready = [v for v, state in control.states()["rank"].items() if state == "READY"]
                assert ready == [1]
                assert model_of("r000002") not in control.pins()
