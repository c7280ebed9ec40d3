"""Rules about the files of a version: each is opened the way its reader does, without running anything."""

from __future__ import annotations

import ast
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.findings import Finding
from core.graph_check import graph_findings
from serving.lint.folders import versions_of
from serving.lint.repository import Repository
from serving.release import GRAPH_FILE, PLAN_FACTS, STEP_FILE

STEP_CLASS = "TritonPythonModel"


def graphs(seen: Repository) -> Iterator[Finding]:
    """Every model.onnx: see ``core.graph_check``. Triton answers 200 to loading an ensemble over a corrupt leaf."""
    specs = seen.specs()
    for name in seen.configs:
        for folder in versions_of(seen, name):
            path = folder / GRAPH_FILE
            if path.is_file() and path.stat().st_size:
                yield from graph_findings(path, specs.get(name))


def python_steps(seen: Repository) -> Iterator[Finding]:
    """Every model.py parses whole and has the class that the stub looks for; a dead stub is never started again."""
    for path in _files(seen, STEP_FILE):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError) as error:
            yield Finding("step-source", str(path), "model.py does not parse", found=str(error)[:200])
            continue
        methods = {
            item.name
            for node in tree.body
            if isinstance(node, ast.ClassDef) and node.name == STEP_CLASS
            for item in node.body
            if isinstance(item, ast.FunctionDef)
        }
        if not {"initialize", "execute"} <= methods:
            wanted = f"class {STEP_CLASS} with initialize and execute"
            yield Finding("step-source", str(path), "model.py is not a whole step", wanted, str(sorted(methods)))


def tables(seen: Repository) -> Iterator[Finding]:
    """Parquet, npz, SQLite and JSON files of the steps can be read, and no number in them is NaN."""
    for path in _files(seen, "*.parquet"):
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            yield Finding("table-readable", str(path), "table cannot be read", found=str(error)[:200])
            continue
        for column in table.column_names:
            if table[column].null_count:
                yield Finding("table-values", f"{path}, column {column}", "missing values", "none")
    for path in _files(seen, "*.npz"):
        yield from _npz(path)
    for path in _files(seen, "*.sqlite"):
        try:
            with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as database:
                told = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            told = str(error)
        if told != "ok":
            yield Finding("table-readable", str(path), "database is damaged", "ok", str(told)[:200])
    for path in _files(seen, "*.json"):
        try:
            json.loads(path.read_bytes())
        except ValueError as error:
            yield Finding("table-readable", str(path), "JSON cannot be read", found=str(error)[:200])


def plans(seen: Repository) -> Iterator[Finding]:
    """A plan says what it was built on; Triton has no look at it before it loads."""
    for path in _files(seen, PLAN_FACTS):
        try:
            facts = json.loads(path.read_bytes())
            lacking = {"gpu", "compute_capability", "tensorrt", "onnx_sha256", "plan_sha256", "profiles"} - set(facts)
        except (ValueError, TypeError) as error:
            lacking = {str(error)[:100]}
        if lacking:
            yield Finding("plan-facts", str(path), "plan without what it was built on", found=f"no {sorted(lacking)}")


def _npz(path: Path) -> Iterator[Finding]:
    try:
        with np.load(path, allow_pickle=False) as data:
            for name in data.files:
                values = data[name]
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    yield Finding("table-values", f"{path}, array {name}", "NaN or infinite values", "finite ones")
    except (OSError, ValueError, KeyError, BadZipFile, EOFError, NotImplementedError) as error:
        yield Finding("table-readable", str(path), "arrays cannot be read", found=repr(error)[:200])


def _files(seen: Repository, pattern: str) -> Iterator[Path]:
    for name in seen.configs:
        for folder in versions_of(seen, name):
            yield from (path for path in sorted(folder.glob(pattern)) if path.is_file() and path.stat().st_size)
