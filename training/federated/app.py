"""The Flower apps: run by ``.venv-flower/bin/python -m training.federated.app FOLDER``, where the job's files lie."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, RecordDict
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import FitRes, Parameters, Scalar, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import LegacyContext, ServerConfig
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg, FedProx
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid, ServerApp

from training.federated.client_maths import Constants, clipped_gradient, local_table, statistics
from training.federated.grid import PARTITION, InProcessGrid
from training.federated.job import ROUNDS_FILE, Job, read_shard
from training.federated.server import ServerState

RANGE = 8.0
"""SecAgg+ turns numbers from -RANGE to RANGE into integers."""
LEVELS = 2**22
LARGEST_WEIGHT = 20.0
"""Of a user's event: statistics of all users' largest ones at one client still fit into the range."""
NOISE_TAIL = 10.0
"""Standard deviations of noise that have to fit into the range."""


def unit_of(noise: float, usual: float) -> float:
    """What a sent 1 stands for: ``usual``, or more where the noise needs it."""
    return max(usual, NOISE_TAIL * noise / RANGE)


class MfClient(NumPyClient):
    """One client: its users' events stay in ``shard``; what it returns is for the sum over clients."""

    def __init__(self, folder: Path, client: int) -> None:
        self.job, self.shard = Job.read(folder), read_shard(folder, client)
        self.rng = np.random.default_rng()  # noise from a published seed could be taken off again

    def fit(self, parameters: list[np.ndarray], config: dict[str, Any]) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        """The statistics first, then a changed table, or clipped gradients with this client's part of the noise."""
        job, share = self.job, self.job.clients**-0.5  # variances of the parts add up
        if not config["scale"]:
            noise = job.statistics_noise * job.statistics_clip
            sent = statistics(self.shard, job.n_items, job.statistics_clip if job.private else 0.0)
            parts, unit = (
                [sent + self._noise(noise * share, sent.shape)],
                unit_of(noise, job.n_users * LARGEST_WEIGHT / RANGE),
            )
        else:
            items, mass, gram = (array.astype(np.float64) for array in parameters)
            names = ("scale", "all_weight", "regularisation", "frequency_power", "user_count")
            constants = Constants(*(float(config[name]) for name in names))
            if job.private:
                noise = job.noise * job.clip
                own = clipped_gradient(self.shard, items, constants, job.clip, job.gram_weight)
                parts = [part + self._noise(noise * share, part.shape) for part in own]
                unit = unit_of(noise, job.clip * job.n_users / RANGE)
            else:
                change, part, own_gram = local_table(
                    self.shard, items, mass, gram if gram.any() else None, constants, job.local_epochs,
                    float(config.get("proximal_mu", 0.0)),
                )  # fmt: skip
                parts, unit = [change, part, own_gram / constants.user_count], 1.0
        parts = [part / unit for part in parts]
        largest = max(float(np.abs(part).max()) for part in parts)
        if job.secure and not largest <= RANGE:
            raise ValueError(f"a client's sum has {largest:.3g} where secure aggregation takes up to {RANGE}")
        return parts, 1, {"unit": unit}

    def _noise(self, deviation: float, shape: tuple[int, ...]) -> np.ndarray | float:
        return self.rng.normal(0, deviation, shape) if deviation else 0.0


class SumOfClients(FedProx):
    """FedProx (FedAvg where mu is 0); the average that Flower makes, times the clients, is the sum."""

    def __init__(self, job: Job) -> None:
        self.job, self.state = job, ServerState(job)
        self.tables: list[np.ndarray] = []
        common = {
            "fraction_evaluate": 0.0, "min_fit_clients": job.clients, "min_available_clients": job.clients,
            "on_fit_config_fn": self._config, "initial_parameters": self._parameters(),
        }  # fmt: skip
        super().__init__(proximal_mu=job.proximal, **common)

    def _config(self, _: int) -> dict[str, Scalar]:
        constants = self.state.constants
        return {"scale": 0.0} if constants is None else dict(vars(constants))

    def _parameters(self) -> Parameters:
        return ndarrays_to_parameters([self.state.items, self.state.mass, self.state.gram])

    def aggregate_fit(
        self, server_round: int, results: list[tuple[ClientProxy, FitRes]], failures: list[Any]
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Takes the sum into the state; what goes out next is its table."""
        if failures or len(results) != self.job.clients:
            raise RuntimeError(
                f"round {server_round}: {len(results)} of {self.job.clients} clients answered: {failures}"
            )
        mean, _ = FedAvg.aggregate_fit(self, server_round, results, failures)
        total = [array * self.job.clients for array in parameters_to_ndarrays(mean)]
        job, state = self.job, self.state
        total = [array * float(results[0][1].metrics["unit"]) for array in total]
        if state.constants is None:
            state.take_statistics(total[0])
        elif job.private:
            state.take_gradient(*total)
        else:
            state.take_tables(total[0], total[1], total[2] * state.constants.user_count)
        if server_round > 1:
            self.tables.append(state.items.astype(np.float32))
        return self._parameters(), {}


def run(folder: Path) -> None:
    """Runs the job in ``folder`` and writes the tables of all rounds there."""
    job = Job.read(folder)
    strategy = SumOfClients(job)
    clients: dict[int, MfClient] = {}

    def client_of(context: Context) -> Any:
        number = int(context.node_config[PARTITION])
        if number not in clients:
            clients[number] = MfClient(folder, number)
        return clients[number].to_client()

    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        legacy = LegacyContext(context, config=ServerConfig(num_rounds=job.rounds + 1), strategy=strategy)
        secure = SecAggPlusWorkflow(
            num_shares=1.0, reconstruction_threshold=0.5, max_weight=1.0, clipping_range=RANGE,
            quantization_range=LEVELS,
        )  # fmt: skip
        DefaultWorkflow(fit_workflow=secure if job.secure else None)(grid, legacy)

    app = ClientApp(client_fn=client_of, mods=[secaggplus_mod] if job.secure else [])
    server(InProcessGrid(app, job.clients), Context(0, 0, {}, RecordDict(), {}))
    state = strategy.state
    if len(strategy.tables) != job.rounds or state.constants is None:
        raise RuntimeError(f"{len(strategy.tables)} of {job.rounds} rounds came to an end")
    np.savez(
        folder / ROUNDS_FILE, tables=np.stack(strategy.tables), mass=state.mass, recent=state.recent,
        mean_length=state.mean_length, **vars(state.constants),
    )  # fmt: skip


if __name__ == "__main__":
    logging.getLogger("flwr").setLevel(logging.WARNING)
    run(Path(sys.argv[1]))
