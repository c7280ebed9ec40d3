"""Every user has one client; skewed clients differ in size and taste, even ones do not."""

from __future__ import annotations

import numpy as np

from core.artifacts import latest_artifact
from core.dataset import Dataset, load_dataset
from core.settings import Settings
from training.federated.partition import even, skewed


def spread(dataset: Dataset, client_of: np.ndarray) -> tuple[float, float]:
    """Ratio of the largest to the smallest client, range of the clients' mean log popularity."""
    events = dataset.events
    popularity = np.log1p(np.bincount(events.item_rows, minlength=dataset.n_items))
    own = client_of[events.user_rows]
    tastes = np.bincount(own, popularity[events.item_rows]) / np.bincount(own)
    sizes = np.bincount(client_of)
    return float(sizes.max() / sizes.min()), float(np.ptp(tastes))


def test_skewed_clients_differ_and_even_ones_do_not(smoke_settings: Settings, smoke_var: object) -> None:
    dataset = load_dataset(latest_artifact(smoke_settings.paths.var, "dataset"))
    alike = even(dataset.n_users, 4, seed=0)
    unlike = skewed(dataset.events, dataset.n_users, dataset.n_items, 4, seed=0)
    for client_of in (alike, unlike):
        assert client_of.shape == (dataset.n_users,)
        assert set(client_of.tolist()) == {0, 1, 2, 3}
    (even_size, even_taste), (skewed_size, skewed_taste) = spread(dataset, alike), spread(dataset, unlike)
    assert even_size < 1.2 < skewed_size
    assert skewed_taste > 2 * even_taste
