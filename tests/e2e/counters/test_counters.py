"""Two replicas that count in one Redis: what they let in, and what they do while it is away."""

from __future__ import annotations

import json
import re
import secrets
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from extauthz.counters.outage import fallback
from extauthz.serving.proto.health_pb2 import HealthCheckRequest
from tests.e2e.deciding.test_reasons import CASES, MEANINGS, OPEN, Case, call_http
from tests.e2e.replicas import DECADE, PATH, TURN_S, Replica, key_of, run_replica, write_catalog
from tests.e2e.running import Deployment, Gateway
from tests.e2e.serving.test_serving import AUTHORIZATION, SERVING, health
from tests.e2e.serving.test_start import CATALOG, SETTINGS, problems_of, run, write
from tests.e2e.world import World
from tests.redis_server import RedisServer

pytestmark = pytest.mark.e2e

LIMIT: Final = 100
PATIENT: Final = {"replicas": 2, "timeout": "20s"}
"""For tests in which Redis is well: a busy machine is no outage."""


def _find_calm_zone() -> str:
    """A time zone in which midnight is hours away."""
    return "UTC" if 6 <= datetime.now(UTC).hour < 18 else "Etc/GMT+12"


def _limit(algorithm: str, requests: int, **fields: Any) -> dict[str, Any]:
    return {
        "limits": [{"requests": requests, "per": DECADE, "algorithm": algorithm}],
        **fields,
    }


RULES: Final[Mapping[str, Mapping[str, Any]]] = {
    "fixed_window": _limit("fixed_window", LIMIT),
    "sliding_window": _limit("sliding_window", LIMIT),
    "burst": _limit("burst", LIMIT),
    "calendar": {"limits": [{"requests": LIMIT, "per": "day", "timezone": _find_calm_zone()}]},
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Its path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="counters-") as folder:
        yield Path(folder)


@pytest.fixture
def server(folder: Path) -> Iterator[RedisServer]:
    server = RedisServer(folder).start()
    yield server
    server.signal(signal.SIGCONT)
    server.kill()


def _run_pair(
    stack: ExitStack, deployment: Deployment, catalog: Path, counters: Mapping[str, Any]
) -> tuple[Replica, Replica]:
    first, second = [
        stack.enter_context(run_replica(deployment, [catalog], counters)) for _ in range(2)
    ]
    return first, second


def _url(server: RedisServer) -> str:
    return f"redis://127.0.0.1:{server.port}"


def test_no_more_than_the_limit_passes_two_replicas(
    deployment: Deployment, server: RedisServer, folder: Path
) -> None:
    catalog = folder / "catalog.yaml"
    write_catalog(catalog, RULES)
    with ExitStack() as stack:
        replicas = _run_pair(stack, deployment, catalog, {"url": _url(server), **PATIENT})
        for rule in RULES:
            # Each offers the whole limit, and none waits for the other.
            answers = [replica.begin([rule] * LIMIT) for replica in replicas]
            statuses = [answered.status for finish in answers for answered in finish()]
            assert statuses.count(200) == LIMIT, rule
            assert statuses.count(429) == LIMIT, rule
            for replica in replicas:
                assert replica.ask(rule) == 429, rule
        for replica in replicas:
            assert replica.read_metric("extauthz_counters_failures_total") == 0


@pytest.fixture(scope="module")
def counted() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="counters-") as folder:
        server = RedisServer(Path(folder)).start()
        yield server
        server.kill()


@pytest.fixture(scope="module")
def counting_gateway(
    deployment: Deployment,
    world: World,
    counted: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """The world, in which each request is counted in Redis beside all other limits."""
    everybody = tmp_path_factory.mktemp("everybody") / "limits.yaml"
    write(
        everybody,
        {
            "tiers": {"Wide": {"limits": [{"requests": 10**9, "per": DECADE}]}},
            "custom_limits": [{"name": "everybody", "key": "all", "tier": "Wide"}],
        },
    )
    with (
        run_replica(
            deployment, [world.catalog, everybody], {"url": _url(counted), **PATIENT}
        ) as replica,
        deployment.run_gateway(replica.grpc_address) as gateway,
    ):
        yield gateway


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_a_denied_request_changes_nothing_in_redis(
    world: World, counted: RedisServer, counting_gateway: Gateway, case: Case
) -> None:
    good = {"x-api-key": world.keys["mobile"]}
    before = counted.dump()
    assert counting_gateway.call("POST", OPEN, good).status_code == 200
    assert counted.dump() != before
    status, _, _, _ = MEANINGS[case.reason]
    # A limit is reached by requests that are counted; what comes on top is not.
    assert call_http(counting_gateway, world, case).status_code == status
    before = counted.dump()
    answer = call_http(counting_gateway, world, case)
    assert (answer.status_code, answer.json()["reason"]) == (status, case.reason.value)
    assert counted.dump() == before


OUTAGE_LIMIT: Final = 10
SHARE: Final = 5
MODES: Final[Mapping[str, Mapping[str, Any]]] = {
    mode: _limit("fixed_window", OUTAGE_LIMIT, on_outage=mode)
    for mode in ("deny", "allow", "local")
}


def _count_admitted(statuses: Sequence[int]) -> int:
    assert set(statuses) <= {200, 429}, statuses
    return statuses.count(200)


def _read_count(server: RedisServer, consumer: str) -> int:
    """What Redis has counted of a consumer with one fixed window."""
    (value,) = [
        bytes(server.ask("GET", key)) for key in server.ask("KEYS", f"*:{consumer}}}*fixed_window*")
    ]
    return int(value.split()[1])


def _find_outage_lines(replica: Replica) -> list[tuple[str, str]]:
    """WARNING and INFO lines about the store, by their beginnings."""
    return re.findall(
        rf" (WARNING|INFO) {re.escape(fallback.__name__)}: counter_store_failed: "
        r"the counter store is (\w+)",
        replica.log_file.read_text(),
    )


def test_each_tier_does_what_it_says_while_redis_is_dead_and_the_counts_come_right(
    deployment: Deployment, server: RedisServer, folder: Path
) -> None:
    catalog = folder / "catalog.yaml"
    write_catalog(catalog, MODES)
    with ExitStack() as stack:
        replicas = _run_pair(stack, deployment, catalog, {"url": _url(server), **PATIENT})
        gateway = stack.enter_context(deployment.run_gateway(replicas[0].grpc_address))
        for replica in replicas:
            assert [replica.ask(mode) for mode in MODES] == [200] * len(MODES)
            assert replica.read_readiness()[:2] == (200, "ready")
            assert replica.read_metric("extauthz_counters_up") == 1

        server.kill()
        for replica in replicas:
            replica.wait_until(
                lambda replica=replica: (
                    replica.ask("allow") == 200 and replica.is_without_store()  # type: ignore[misc]
                ),
                "Redis is found to be away",
            )
            assert replica.ask("deny") == 503
            assert [replica.ask("allow") for _ in range(2 * OUTAGE_LIMIT)] == [200] * 20
            admitted = _count_admitted([replica.ask("local") for _ in range(OUTAGE_LIMIT)])
            assert admitted == SHARE
            status, word, counters = replica.read_readiness()
            assert (status, word) == (200, "degraded")
            assert counters["owed_counters"] == 1
            asked = HealthCheckRequest(service=AUTHORIZATION)
            answer = health(replica.channel)(asked, timeout=TURN_S)
            assert answer.status == SERVING
            assert replica.read_metric("extauthz_counters_up") == 0
            assert replica.read_metric("extauthz_counters_local_total") == SHARE
        through_envoy = {
            mode: gateway.call("POST", PATH, {"x-api-key": key_of(mode)}).status_code
            for mode in MODES
        }
        assert through_envoy == {"deny": 503, "allow": 200, "local": 429}

        server.start()
        for replica in replicas:
            replica.wait_until_it_says("ready")
            assert replica.read_metric("extauthz_counters_up") == 1
            assert replica.read_metric("extauthz_counters_owed") == 0
            assert replica.read_metric("extauthz_counters_losses_total") == 1
        # The new Redis has lost what it had counted before; what came meanwhile it has.
        assert _read_count(server, "local") == len(replicas) * SHARE
        for replica in replicas:
            assert replica.ask("local") == 429
            assert replica.ask("deny") == 200
            assert _find_outage_lines(replica) == [("WARNING", "away"), ("INFO", "back")]


def test_readiness_tells_that_redis_is_away_though_nobody_calls(
    deployment: Deployment, server: RedisServer, folder: Path
) -> None:
    catalog = folder / "catalog.yaml"
    write_catalog(catalog, MODES)
    server.kill()
    with run_replica(deployment, [catalog], {"url": _url(server), **PATIENT}) as replica:
        status, word, counters = replica.read_readiness()
        assert (status, word) == (200, "degraded")
        assert "cannot be reached" in counters["last_error"]
        assert replica.read_metric("extauthz_counters_up") == 0
        server.start()
        replica.wait_until_it_says("ready")
        assert replica.read_metric("extauthz_counters_up") == 1
        server.kill()
        replica.wait_until_it_says("degraded")
        server.start()
        replica.wait_until_it_says("ready")
        assert "extauthz_decisions_total{" not in replica.read_metrics()


TIMEOUT_S: Final = 2.0


def test_nobody_waits_longer_than_the_timeout_for_a_redis_that_hangs(
    deployment: Deployment, server: RedisServer, folder: Path
) -> None:
    catalog = folder / "catalog.yaml"
    write_catalog(catalog, {"local": _limit("fixed_window", 1000), "deny": MODES["deny"]})
    counters = {"url": _url(server), "replicas": 2, "timeout": f"{TIMEOUT_S:g}s"}
    with run_replica(deployment, [catalog], counters) as replica:
        assert replica.ask("local") == 200
        server.signal(signal.SIGSTOP)
        answers = replica.ask_at_once([*["local"] * 30, *["deny"] * 3])
        assert [answered.status for answered in answers] == [200] * 30 + [503] * 3
        # Somebody has waited for Redis; and nobody for two timeouts.
        assert TIMEOUT_S <= max(answered.took_s for answered in answers) < 2 * TIMEOUT_S
        # Those were one failure. It takes three until nobody asks.
        asked_again = 0
        while not replica.is_without_store():
            asked_again += 1
            assert replica.ask("local") == 200
            assert asked_again < 5
        later = [replica.ask_at_once(["local"])[0] for _ in range(50)]
        assert {answered.status for answered in later} == {200}
        # Redis still hangs, and nobody asks it.
        assert max(answered.took_s for answered in later) < TIMEOUT_S
        assert replica.read_readiness()[1] == "degraded"
        server.signal(signal.SIGCONT)
        replica.wait_until_it_says("ready")
        admitted, uncertain = 1 + 30 + asked_again + 50, 30 + asked_again
        # Those whose answer did not come may have been charged, and are never charged again.
        assert admitted - uncertain <= _read_count(server, "local") <= admitted


def test_stops_in_time_though_redis_hangs(
    deployment: Deployment, server: RedisServer, folder: Path
) -> None:
    catalog = folder / "catalog.yaml"
    write_catalog(catalog, {"local": _limit("fixed_window", OUTAGE_LIMIT)})
    counters, grace = {"url": _url(server), **PATIENT}, {"grace": "500ms"}
    with run_replica(deployment, [catalog], counters, server=grace) as replica:
        assert replica.ask("local") == 200
        server.signal(signal.SIGSTOP)
        finish = replica.begin(["local"] * 3)
        replica.wait_until(
            lambda: replica.read_metric("extauthz_calls_in_flight") == 3, "three wait for Redis"
        )
        replica.process.terminate()
        # Before Redis's timeout: the grace is what bounds the waiting.
        assert replica.process.wait(15) == 0
        assert {answered.status for answered in finish()} == {503}
    assert "Traceback" not in replica.log_file.read_text()


@pytest.fixture
def guarded(folder: Path, world: World) -> Iterator[tuple[RedisServer, Path]]:
    """A Redis that asks for a password, and the file that the password stands in."""
    password = secrets.token_urlsafe(24)
    world.secrets.add(password)
    file = folder / "password"
    file.write_text(f"{password}\n")
    server = RedisServer(folder, "--requirepass", password).start()
    yield server, file
    server.kill()


def test_counts_through_a_unix_socket_with_a_password_from_a_file(
    deployment: Deployment, guarded: tuple[RedisServer, Path], folder: Path
) -> None:
    server, password_file = guarded
    catalog = folder / "catalog.yaml"
    write_catalog(catalog, {"one": _limit("fixed_window", 1)})
    counters = {
        "url": f"unix://{server.socket}?db=3",
        "password_file": str(password_file),
        "prefix": "mesh:",
        **PATIENT,
    }
    with run_replica(deployment, [catalog], counters) as replica:
        assert [replica.ask("one") for _ in range(2)] == [200, 429]
        assert replica.read_readiness()[1] == "ready"
    with redis.Redis(port=server.port, db=3, password=password_file.read_text().strip()) as client:
        marker, counter, confirmed = sorted(client.scan_iter())
        assert counter.startswith(b"mesh:{a3:one}")
        assert marker == b"mesh:{0}marker"
        assert confirmed == b"mesh:{blocks}:confirmed"


def test_a_wrong_password_is_an_outage_and_shows_nowhere(
    deployment: Deployment, world: World, guarded: tuple[RedisServer, Path], folder: Path
) -> None:
    server, password_file = guarded
    wrong = secrets.token_urlsafe(24)
    world.secrets.add(wrong)
    right = password_file.read_text()
    password_file.write_text(wrong)
    catalog = folder / "catalog.yaml"
    write_catalog(catalog, {"local": _limit("fixed_window", OUTAGE_LIMIT)})
    counters = {"url": f"unix://{server.socket}", "password_file": str(password_file), **PATIENT}
    with run_replica(deployment, [catalog], counters) as replica:
        replica.wait_until(
            lambda: replica.ask("local") in (200, 429) and replica.is_without_store(),
            "Redis is found not to let us in",
        )
        said = json.dumps(replica.read_readiness()[2])
        assert "invalid username-password" in said
        # The line that says that Redis is away says why.
        (line,) = [one for one in replica.log_file.read_text().splitlines() if "is away: " in one]
        assert "invalid username-password" in line
        # It is read anew for each connection: once it is right, so is the rest.
        password_file.write_text(right)
        replica.wait_until_it_says("ready")
        log = replica.log_file.read_text()
    assert wrong not in said + log and right.strip() not in said + log


REFUSED: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "no url": ({}, r"extauthz\.yaml:\d+: counters: store: redis needs a url.*"),
    "a certificate without its key": (
        {"url": "rediss://127.0.0.1:1", "tls": {"cert": "a.pem"}},
        r"counters: a client certificate needs both .*",
    ),
    "a password file that is not there": (
        {"url": "redis://127.0.0.1:1", "password_file": "no-password"},
        r".*no-password does not exist; .*",
    ),
    "an authority that is not there": (
        {"url": "rediss://127.0.0.1:1", "tls": {"ca": "no-ca.pem"}},
        r".*no-ca\.pem does not exist; .*",
    ),
}


@pytest.mark.parametrize(("counters", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_at_the_start(
    tmp_path: Path, host: str, counters: Mapping[str, Any], expected: str
) -> None:
    own = {"counters": {"store": "redis", **counters}, "server": {"host": host}}
    write(tmp_path / "extauthz.yaml", {**SETTINGS, **own})
    (tmp_path / "catalog").mkdir()
    write(tmp_path / "catalog" / "apis.yaml", CATALOG)
    (problem,) = problems_of(run("serve", folder=tmp_path))
    assert re.fullmatch(expected, problem), problem
    # And so says the command that checks before a start.
    assert run("validate", folder=tmp_path).stderr.splitlines()[0] == problem
