"""One uvicorn process with FastAPI over the five steps.

    .venv/bin/python -m bench.serving_peers.web --engine onnx --release FOLDER --var VAR --port 9000

``--inline`` computes in the event loop, which saves a thread's hop but answers one request at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from serving.local import LocalPipeline


class Asked(BaseModel):
    """A request for a batch of users."""

    users: list[str]
    k: int = 10


def application(pipeline: LocalPipeline, *, inline: bool) -> FastAPI:
    """The app: one route."""
    app = FastAPI(openapi_url=None)

    def answer(asked: Asked) -> JSONResponse:
        found = pipeline.recommend(asked.users, asked.k)
        return JSONResponse([_plain(one) for one in found])

    async def answer_inline(asked: Asked) -> JSONResponse:
        return answer(asked)

    app.post("/recommend", response_model=None)(answer_inline if inline else answer)
    return app


def _plain(one: Any) -> dict[str, Any]:
    items = [
        {"id": item.item_id, "score": item.score, "reasons": [[why.item_id, why.share] for why in item.reasons]}
        for item in one.items
    ]
    return {"user": one.user_id, "release": one.release, "items": items}


def main(
    engine: Annotated[Literal["onnx", "torch"], typer.Option()],
    release: Annotated[Path, typer.Option()],
    var: Annotated[Path, typer.Option()],
    port: Annotated[int, typer.Option()],
    inline: Annotated[bool, typer.Option()] = False,
) -> None:
    """Serve until ended."""
    if engine == "torch":
        from bench.serving_peers.torch_steps import TorchPipeline  # torch is not in the ONNX peer's memory

        pipeline: LocalPipeline = TorchPipeline(release, var, threads=1)
    else:
        pipeline = LocalPipeline(release, threads=1)
    with pipeline:
        uvicorn.run(
            application(pipeline, inline=inline), host="127.0.0.1", port=port, log_level="warning", access_log=False
        )


if __name__ == "__main__":
    typer.run(main)
