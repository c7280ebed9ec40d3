"""Public archives in small, the wheel, and made-up data."""

from __future__ import annotations

import functools
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.dataset import Dataset, load_dataset
from core.errors import DataError
from core.progress import SILENT
from core.sections import DataSettings
from tests.unit.data.tables import NOW, Told, settings_for
from training.data import movielens, recbole
from training.data.download import fetch_url, fetch_wheel
from training.data.events import parse_events
from training.data.movielens import read_movielens
from training.data.stage import build_dataset
from training.data.synthetic import make_synthetic, sizes_of

DAT = {
    "ml-1m/ratings.dat": b"1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978300275\n",
    "ml-1m/movies.dat": "1193::Léon: The Professional (1994)::Crime|Drama\n661::Odd\n".replace(
        "Odd", "Untitled::(no genres listed)"
    ).encode("latin-1"),
    "ml-1m/users.dat": b"1::F::1::10::48067\n2::M::56::16::70072\n",
}
CSV = {
    "ml-25m/ratings.csv": b"userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n2,306,3.5,1147868817\n",
    "ml-25m/movies.csv": 'movieId,title,genres\n296,"Good, the Bad, The (1966)",Western\n306,é,Drama|War\n'.encode(),
}
ATOMIC = {
    "recbole/dataset_example/ml-100k/ml-100k.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    b"196\t242\t3\t881250949\n186\t302\t4\t891717742\n",
    "recbole/dataset_example/ml-100k/ml-100k.item": b"item_id:token\tmovie_title:token_seq\trelease_year:token\t"
    b'class:token_seq\n242\tThe "Kolya\t1996\tComedy Drama\n302\tL.A. Confidential\t1997\tCrime\n',
    "recbole/dataset_example/ml-100k/ml-100k.user": b"user_id:token\tage:token\tgender:token\n196\t49\tM\n186\t39\tF\n",
}


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def build_cached(var: Path, source: str, archive: str, members: dict[str, bytes]) -> Dataset:
    write_zip(var / "cache" / archive, members)
    return load_dataset(build_dataset(settings_for(var, source=source), now=lambda: NOW))


def test_movielens_dat_layout_is_read(tmp_path: Path) -> None:
    dataset = build_cached(tmp_path, "movielens-1m", "ml-1m.zip", DAT)
    assert set(dataset.users.ids) == {"1", "2"}
    titles = dict(zip(dataset.items.ids, dataset.titles, strict=True))
    assert titles == {"1193": "Léon: The Professional", "661": "Untitled"}
    assert dataset.events.timestamps.tolist() == [978300275, 978300760, 978302109]
    assert dataset.events.raw_values.tolist() == [4, 5, 3]


def test_movielens_csv_layout_is_read(tmp_path: Path) -> None:
    dataset = build_cached(tmp_path, "movielens-25m", "ml-25m.zip", CSV)
    titles = dict(zip(dataset.items.ids, dataset.titles, strict=True))
    assert titles == {"296": "Good, the Bad, The", "306": "é"}
    assert dataset.events.raw_values.tolist() == [3.5, 5.0]


def test_movielens_title_gives_its_year_and_genres(tmp_path: Path) -> None:
    _, items, users = read_movielens(write_zip(tmp_path / "ml-1m.zip", DAT))
    assert items.columns.to_pylist() == [
        {"item_id": "1193", "title": "Léon: The Professional", "year": "1994", "genres": "Crime|Drama"},
        {"item_id": "661", "title": "Untitled", "year": None, "genres": ""},
    ]
    assert users is not None
    assert users.columns.to_pylist()[1] == {
        "user_id": "2", "gender": "M", "age": "56", "occupation": "16", "zip_code": "70072"
    }  # fmt: skip


def test_bad_rating_in_an_archive_is_named_with_its_line(tmp_path: Path) -> None:
    members = {**DAT, "ml-1m/ratings.dat": b"1::1193::5::978300760\n1::661::3::soon\n"}
    events, _, _ = read_movielens(write_zip(tmp_path / "ml-1m.zip", members))
    with pytest.raises(DataError, match=r"ml-1m.zip:ml-1m/ratings.dat, line 2, column timestamp"):
        parse_events(events, now=NOW, max_bad_share=0)


def test_ragged_movie_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"movies.dat, line 1"):
        read_movielens(write_zip(tmp_path / "ml-1m.zip", {**DAT, "ml-1m/movies.dat": b"1::A"}))


def test_archive_without_ratings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a MovieLens archive"):
        read_movielens(write_zip(tmp_path / "ml-1m.zip", {"a.txt": b""}))


def test_archive_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ml-1m.zip"
    path.write_bytes(b"<html>")
    with pytest.raises(DataError, match="not a zip file") as caught:
        read_movielens(path)
    assert caught.value.next_step == f"delete {path} to fetch it again"


def test_atomic_files_are_read_from_a_wheel(tmp_path: Path) -> None:
    events, items, users = recbole.read_atomic(write_zip(tmp_path / "some.whl", ATOMIC))
    assert events.columns.column_names == ["user_id", "item_id", "value", "timestamp"]
    raw, report = parse_events(events, now=NOW, max_bad_share=0)
    assert raw.values is not None
    assert raw.values.tolist() == [3, 4]
    assert report.rows_read == 2
    assert items.columns.to_pylist()[0] == {
        "item_id": "242", "title": 'The "Kolya', "year": "1996", "genres": "Comedy|Drama"
    }  # fmt: skip
    assert users.columns.column_names == ["user_id", "age", "gender"]


def test_wheel_without_the_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="archive lacks a file"):
        recbole.read_atomic(write_zip(tmp_path / "some.whl", {"a": b""}))


def test_wheel_with_another_digest_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "var" / "cache" / recbole.WHEEL, ATOMIC)
    with pytest.raises(DataError, match="not the file that was expected") as caught:
        build_dataset(settings_for(tmp_path / "var", source="movielens-100k"), now=lambda: NOW)
    assert caught.value.expected == f"sha256 {recbole.WHEEL_SHA256}"
    assert str(path) in str(caught.value.next_step)


def test_wheel_that_cannot_be_fetched_names_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_INDEX": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match=f"cannot fetch {recbole.WHEEL}") as caught:
        fetch_wheel(recbole.REQUIREMENT, recbole.WHEEL, recbole.WHEEL_SHA256, tmp_path / "cache", SILENT)
    assert str(tmp_path / "cache") in str(caught.value.next_step)
    assert "data.source=files" in str(caught.value.next_step)
    assert not list((tmp_path / "cache").iterdir())


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Serves tmp_path/web on a free port of this machine."""
    (tmp_path / "web").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_archive_is_fetched_once(tmp_path: Path, web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_zip(tmp_path / "web" / "ml-1m.zip", DAT)
    monkeypatch.setattr("training.data.sources.ADDRESS", web)
    settings, told = settings_for(tmp_path / "var", source="movielens-1m"), Told()
    build_dataset(settings, told, now=lambda: NOW)
    archive.unlink()
    artifact = build_dataset(settings, told, now=lambda: NOW)
    assert [line for line in told.lines if "fetching" in line] == [f"dataset: fetching {web}/ml-1m.zip"]
    assert list(artifact.manifest.metrics["fetched_sha256"]) == ["ml-1m.zip"]
    assert movielens.ARCHIVES["movielens-1m"] == "ml-1m.zip"


def test_archive_that_is_not_there_leaves_nothing(tmp_path: Path, web: str) -> None:
    with pytest.raises(DataError, match="404"):
        fetch_url(f"{web}/none.zip", tmp_path / "cache", SILENT)
    assert not list((tmp_path / "cache").iterdir())


SMALL = DataSettings(source="synthetic", synthetic_users=400, synthetic_items=150, synthetic_events=9_000)


def test_synthetic_data_is_the_same_for_the_same_seed() -> None:
    (one, items, users), (two, same_items, same_users) = make_synthetic(SMALL), make_synthetic(SMALL)
    for name in ("timestamps", "values"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_array_equal(one.users.codes, two.users.codes)
    np.testing.assert_array_equal(one.items.codes, two.items.codes)
    assert items.columns.equals(same_items.columns)
    assert users.columns.equals(same_users.columns)


def test_synthetic_data_differs_for_another_seed() -> None:
    other, _, _ = make_synthetic(SMALL.model_copy(update={"seed": 1}))
    assert not np.array_equal(make_synthetic(SMALL)[0].items.codes, other.items.codes)


def test_synthetic_events_are_as_many_as_asked_for_without_repeats() -> None:
    events, _, _ = make_synthetic(SMALL)
    pairs = events.users.codes.astype(np.int64) * SMALL.synthetic_items + events.items.codes
    assert len(np.unique(pairs)) == len(events) == SMALL.synthetic_events


def test_densest_synthetic_data_can_be_drawn() -> None:
    dense = SMALL.model_copy(update={"synthetic_users": 40, "synthetic_items": 20, "synthetic_events": 200})
    assert len(make_synthetic(dense)[0]) == 200


def test_synthetic_popularity_is_skewed_and_tastes_tell_what_comes_next(tmp_path: Path) -> None:
    settings = settings_for(
        tmp_path, source="synthetic", synthetic_events=40_000, synthetic_users=1_500, synthetic_items=600
    )
    dataset = load_dataset(build_dataset(settings, SILENT))
    train, test = dataset.events.of_splits(("train",)), dataset.events.of_splits(("test",))
    counts = np.bincount(train.item_rows, minlength=dataset.n_items)
    assert counts[: dataset.n_items // 10].sum() > 0.3 * counts.sum()

    tastes = dataset.item_features.codes[:, 0]
    liked = np.zeros((dataset.n_users, tastes.max() + 1))
    np.add.at(liked, (train.user_rows, tastes[train.item_rows]), 1)
    warm = liked[test.user_rows].sum(1) >= 5
    top = np.argsort(-liked, axis=1)[:, :3]  # (U, 3)
    own = (top[test.user_rows[warm]] == tastes[test.item_rows[warm]][:, None]).any(1).mean()
    strangers = np.random.default_rng(0).permutation(test.user_rows[warm])
    others = (top[strangers] == tastes[test.item_rows[warm]][:, None]).any(1).mean()
    assert own > 2 * others


@pytest.mark.parametrize("events", [10, 1_000, 50_000, 1_000_000, 20_000_000])
def test_synthetic_sizes_leave_room_for_any_number_of_events(events: int) -> None:
    users, items = sizes_of(DataSettings(source="synthetic", synthetic_events=events))
    assert events <= users * items / 4


def test_synthetic_sizes_that_are_set_are_kept() -> None:
    assert sizes_of(DataSettings(synthetic_events=1_000, synthetic_users=70, synthetic_items=90)) == (70, 90)
