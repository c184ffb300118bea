"""The playground's route: its files and headers, and that the flag takes it away."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from e3rl_server.playground import ASSETS, PlaygroundEndpoints


def client(**args: bool) -> TestClient:
    app = FastAPI()
    app.state.args = SimpleNamespace(**args)
    PlaygroundEndpoints().attach_router(app)
    return TestClient(app)


@pytest.mark.parametrize("path", ["/playground", "/playground/"])
def test_the_page_is_there(path: str) -> None:
    answer = client(no_playground=False).get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_plain_vllm_has_it_where_the_plugin_is_named() -> None:
    assert client().get("/playground/").status_code == 200


def test_the_flag_takes_it_away() -> None:
    assert client(no_playground=True).get("/playground/").status_code == 404


@pytest.mark.parametrize("name", sorted(path.name for path in ASSETS.iterdir()))
def test_every_file_is_held_to_this_server(name: str) -> None:
    headers = client().get(f"/playground/{name}").headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert {"script-src", "style-src", "connect-src", "form-action", "frame-ancestors"} <= policy.keys()
    assert headers["x-content-type-options"] == "nosniff"


def test_the_page_names_only_files_that_are_there() -> None:
    page = (ASSETS / "index.html").read_text("utf-8")
    named = re.findall(r'(?:src|href)="\./([^"]*)"', page)
    assert len(named) >= 3
    assert {(ASSETS / name).is_file() for name in named} == {True}
    assert not re.findall(r"""<style|<script>| on\w+=| style=|(?:src|href)="(?!\./)""", page)


def test_no_path_leads_out_of_the_folder() -> None:
    assert client().get("/playground/..%2f..%2fplayground.py").status_code == 404
