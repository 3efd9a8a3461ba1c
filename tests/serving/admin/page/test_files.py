"""The files of the live page, as they are served."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

import httpx2

from extauthz.answers.reasons import MEANINGS
from extauthz.inspection.catalog_search import KINDS
from extauthz.model.decision import Reason
from extauthz.serving.admin.page.files import PAGE_HEADERS, PageFile, read_page
from tests.serving.admin.watched_service import WatchedService

MOST_LINES: Final = 300
PAGE: Final[Mapping[str, PageFile]] = read_page()
SCRIPTS: Final = {path: file.body.decode() for path, file in PAGE.items() if path.endswith(".js")}


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r'(?:href|src)="(page/[\w.]+)"', PAGE["/"].body.decode())
    named += [
        f"page/{name}" for it in SCRIPTS.values() for name in re.findall(r'"\./([\w.]+)"', it)
    ]
    assert len(named) > 10
    assert {f"/{name}" for name in named} <= set(PAGE)


def test_every_file_is_used() -> None:
    texts = "".join(file.body.decode() for file in PAGE.values())
    assert [path for path in PAGE if path != "/" and path.rpartition("/")[2] not in texts] == []


def test_nothing_is_taken_from_elsewhere() -> None:
    for path, file in PAGE.items():
        text = file.body.decode().replace("http://www.w3.org/2000/svg", "")
        links = re.findall(r"(?<!Source: )https?://[\w.]+", text)
        assert links == [], path


def test_no_script_makes_html_of_text() -> None:
    makers = r"innerHTML|outerHTML|insertAdjacent|document\.write|DOMParser|\beval\b|new Function"
    assert {path: found for path, it in SCRIPTS.items() if (found := re.findall(makers, it))} == {}


def test_scripts_and_styles_are_in_files_and_these_are_short() -> None:
    html = PAGE["/"].body.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", html)
    for path, file in PAGE.items():
        assert file.body.count(b"\n") <= MOST_LINES, path


def test_the_policy_names_nothing_but_the_listener_itself() -> None:
    policy = PAGE_HEADERS["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    own = {"script-src", "style-src", "connect-src", "img-src"}
    assert {name for name, value in rules.items() if value == "'self'"} == own
    for name in ("base-uri", "form-action", "frame-ancestors", "trusted-types"):
        assert rules[name] == "'none'"


def test_every_reason_has_its_title() -> None:
    titles = httpx2.Response(200, content=PAGE["/page/reasons.json"].body).json()
    assert titles == {reason.value: MEANINGS[reason].title for reason in Reason}


def test_the_search_offers_the_kinds_that_there_are() -> None:
    form = PAGE["/"].body.decode().partition('id="search"')[2].partition("</form>")[0]
    assert re.findall(r'<option value="(\w+)"', form) == list(KINDS)


def test_each_file_is_served_with_its_type_and_the_headers(service: WatchedService) -> None:
    with httpx2.Client(base_url=service.admin, trust_env=False) as client:
        for path, file in PAGE.items():
            answer = client.get(path)
            assert (answer.status_code, answer.content) == (200, file.body)
            assert answer.headers["content-type"] == file.content_type
            assert {name: answer.headers[name] for name in PAGE_HEADERS} == dict(PAGE_HEADERS)
        assert client.post("/").status_code == 405


def test_all_files_are_in_the_package() -> None:
    folder = files("extauthz.serving.admin.page").joinpath("static")
    assert len(list(folder.iterdir())) == len(PAGE) - 1  # reasons.json is made
