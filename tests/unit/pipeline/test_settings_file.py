from __future__ import annotations

import tomllib

from core.settings import DEFAULT_FILE, Settings, load_settings
from pipeline.settings_file import render


def test_default_file_is_what_the_code_says() -> None:
    assert DEFAULT_FILE.read_text(encoding="utf-8") == render(Settings()), "run `make configs`"


def test_rendered_settings_read_back_equal() -> None:
    settings = load_settings((), ("train.seed=7", "data.source=synthetic", "evaluate.ks=[1, 3]"))
    assert Settings.model_validate(tomllib.loads(render(settings))) == settings
