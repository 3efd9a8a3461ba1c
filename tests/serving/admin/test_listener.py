"""The admin listener, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from extauthz.serving.admin.listener import AdminListener
from extauthz.serving.admin.readiness import ReadyCheck, ReadyState, judge_readiness
from extauthz.serving.listen import ListenAddress, ListenError, read_listen_address


class Admin:
    """A listener whose checks a test can change."""

    def __init__(self, address: ListenAddress) -> None:
        self.checks = [ReadyCheck(name="catalog", state=ReadyState.READY, facts={"revision": "r"})]
        self.listener = AdminListener(address, checks=self.list_checks, metrics=self.write_metrics)

    async def list_checks(self) -> list[ReadyCheck]:
        return self.checks

    async def write_metrics(self) -> tuple[bytes, str]:
        return b"up 1\n", "text/plain; a=b"

    async def get(self, path: str) -> httpx2.Response:
        url = f"http://127.0.0.1:{self.listener.port}{path}"
        async with httpx2.AsyncClient(trust_env=False) as client:
            return await client.get(url)


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    admin = Admin(read_listen_address("127.0.0.1:0"))
    await admin.listener.start()
    yield admin
    await admin.listener.stop()


async def test_healthz_says_that_the_process_is_alive(admin: Admin) -> None:
    answer = await admin.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "alive\n")


async def test_readyz_shows_each_check(admin: Admin) -> None:
    answer = await admin.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "checks": {"catalog": {"status": "ready", "revision": "r"}},
    }


async def test_a_degraded_replica_still_gets_traffic(admin: Admin) -> None:
    admin.checks.append(ReadyCheck(name="counters", state=ReadyState.DEGRADED))
    answer = await admin.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")


async def test_a_replica_that_is_not_ready_gets_none(admin: Admin) -> None:
    admin.checks.append(ReadyCheck(name="serving", state=ReadyState.NOT_READY))
    answer = await admin.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "not ready")


async def test_metrics_come_in_their_own_content_type(admin: Admin) -> None:
    answer = await admin.get("/metrics")
    assert (answer.text, answer.headers["content-type"]) == ("up 1\n", "text/plain; a=b")


async def test_other_paths_are_not_found(admin: Admin) -> None:
    assert (await admin.get("/")).status_code == 404


async def test_a_taken_port_is_told(admin: Admin) -> None:
    second = Admin(read_listen_address(f"127.0.0.1:{admin.listener.port}"))
    with pytest.raises(ListenError, match="choose another"):
        await second.listener.start()


async def test_serves_on_a_unix_socket(tmp_path: Path) -> None:
    admin = Admin(read_listen_address(f"unix:{tmp_path}/admin.sock"))
    await admin.listener.start()
    transport = httpx2.AsyncHTTPTransport(uds=str(tmp_path / "admin.sock"))
    async with httpx2.AsyncClient(transport=transport) as client:
        answer = await client.get("http://admin/healthz")
    await admin.listener.stop()
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        ([], ReadyState.READY),
        ([ReadyState.READY], ReadyState.READY),
        ([ReadyState.READY, ReadyState.DEGRADED], ReadyState.DEGRADED),
        ([ReadyState.NOT_READY, ReadyState.DEGRADED], ReadyState.NOT_READY),
    ],
)
def test_the_worst_check_counts(states: list[ReadyState], worst: ReadyState) -> None:
    assert judge_readiness([ReadyCheck(name="x", state=state) for state in states]) is worst
