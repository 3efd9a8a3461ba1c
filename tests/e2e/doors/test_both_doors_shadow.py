"""A door in shadow lets everything pass and counts nothing, and `extauthz compare` tells why.

In each of two services one door is the shadow and the other one decides; all that is asked there
is written down, and compared when the service has stopped. The shadow is asked first: it tells
of a limit as the deciding door has left it so far.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.deciding.test_reasons import OPEN
from tests.e2e.doors.both_doors import ALLOWED, IN_QUOTA, Answer, Asked, BothDoors, run_both_doors
from tests.e2e.doors.both_doors_table import SCENARIOS, SCOPED, write_extra
from tests.e2e.running import Deployment, next_client
from tests.e2e.serving.test_start import run
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

DOORS: Final = {"grpc": "envoy", "mixer": "mixer"}
"""Values of `server.shadow`, and what the log calls these doors."""
_NOT_COMPARED: Final = {"time", "decision", "door", "shadow", "duration_us", "limits"}
"""What is left of limits differs: only one door takes from them."""
_GUESSES: Final = 6


@dataclass(slots=True)
class Recorded:
    """What was asked of a service, what its doors answered, and what it wrote down.

    Attributes:
        answers: of the table, by the id of the request: of the shadow, and of the other door.
        outcomes: that the table names for them.
    """

    shadow: str
    folder: Path
    answers: dict[str, tuple[Answer, Answer]] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    uncounted: list[Answer] = field(default_factory=list)
    counted: list[Answer] = field(default_factory=list)
    guessed: list[Answer] = field(default_factory=list)
    granted: list[int] = field(default_factory=list)
    seeded: list[Answer] = field(default_factory=list)

    def write(self, name: str, *prefixes: str) -> Path:
        """The lines about requests whose id begins so, in a file."""
        lines = (self.folder / "decisions.jsonl").read_text().splitlines()
        file = self.folder / f"{name}.jsonl"
        kept = [line for line in lines if json.loads(line)["request"].startswith(prefixes)]
        file.write_text("".join(f"{line}\n" for line in kept))
        return file

    def compare(self, name: str, *prefixes: str) -> tuple[int, dict[str, Any]]:
        """What `extauthz compare` says of them: its exit code, and its JSON."""
        done = run("compare", "--json", str(self.write(name, *prefixes)), folder=self.folder)
        return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module", params=list(DOORS))
def recorded(
    deployment: Deployment,
    world: World,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Recorded:
    folder = tmp_path_factory.mktemp("shadow")
    extra = write_extra(folder)
    told = Recorded(str(request.param), folder)
    settings: Mapping[str, Any] = {
        "server": {"shadow": told.shadow},
        "log": {"decisions": str(folder / "decisions.jsonl")},
    }
    with run_both_doors(deployment, "shadow", world.catalog, extra, **settings) as doors:
        _record(told, doors, world)
    return told


def _record(told: Recorded, doors: BothDoors, world: World) -> None:
    ask: dict[str, Callable[[Asked], Answer]]
    ask = {"grpc": doors.ask_envoy, "mixer": doors.ask_mixer}
    shadow = ask.pop(told.shadow)
    (other,) = ask.values()
    _record_shadow_alone(told, shadow, other, world)
    for scenario in SCENARIOS:
        if scenario.outcome == "unavailable":
            # Where Envoy's door decides, its call fails; what is written down is the same.
            continue
        same = scenario.ask(world)
        for number in range(scenario.calls):
            name = f"table/{scenario.title}/{number}"
            asked = replace(same, request_id=name)
            told.answers[name] = shadow(asked), other(asked)
            if number == scenario.calls - 1:
                told.outcomes[name] = scenario.outcome
    _record_quota(told, doors, world)
    only_one = (("authorization", f"Bearer {world.sign(scope='read')}"),)
    neither = (("authorization", f"Bearer {world.sign(scope='other')}"),)
    for name, path, mine, others in (
        ("seeded/scope", SCOPED, only_one, neither),
        ("seeded/key", OPEN, (), (("x-api-key", world.keys["rogue"]),)),
    ):
        client = next_client()
        first = Asked(path=path, headers=mine, client=client, request_id=name)
        second = Asked(path=path, headers=others, client=client, request_id=name)
        told.seeded += [doors.ask_envoy(first), doors.ask_mixer(second)]
    told.seeded.append(shadow(Asked(path=OPEN, client=next_client(), request_id="seeded/alone")))


def _record_shadow_alone(
    told: Recorded,
    shadow: Callable[[Asked], Answer],
    other: Callable[[Asked], Answer],
    world: World,
) -> None:
    """A limit of one, and guesses, which are limited too."""
    headers = (("x-api-key", world.keys["mobile"]), ("x-meter", told.shadow))
    metered = Asked(path=OPEN, headers=headers, client=next_client(), request_id="alone")
    told.uncounted = [shadow(metered) for _ in range(3)]
    told.counted = [other(metered) for _ in range(2)]
    guess = Asked(path=OPEN, headers=(("x-api-key", "guess"),), client=next_client())
    told.guessed = [shadow(guess) for _ in range(_GUESSES)]
    told.guessed.append(other(guess))


def _record_quota(told: Recorded, doors: BothDoors, world: World) -> None:
    """Requests that Mixer asks about twice: of a limit of one the second is refused."""
    headers = (("x-api-key", world.keys["mobile"]), ("x-meter", f"{told.shadow}-quota"))
    for number in range(2):
        asked = Asked(
            path=OPEN, headers=headers, client=next_client(), request_id=f"quota/{number}"
        )

        def ask_mixer(asked: Asked = asked) -> None:
            assert doors.ask_mixer(asked, IN_QUOTA).reason == ALLOWED
            told.granted.append(doors.ask_mixer_for_quota(asked, 1))

        def ask_envoy(asked: Asked = asked) -> None:
            doors.ask_envoy(asked)

        order = (ask_envoy, ask_mixer) if told.shadow == "grpc" else (ask_mixer, ask_envoy)
        for ask in order:
            ask()


def test_the_shadow_lets_everything_pass(recorded: Recorded) -> None:
    for name, (shadow, other) in recorded.answers.items():
        assert shadow == Answer(reason=ALLOWED), name
        assert other.reason == recorded.outcomes.get(name, other.reason), name


def test_the_shadow_counts_nothing(recorded: Recorded) -> None:
    assert recorded.uncounted == [Answer(reason=ALLOWED)] * 3
    assert [answer.reason for answer in recorded.counted] == [ALLOWED, "rate_limited"]


def test_guesses_in_the_shadow_cost_nobody_anything(recorded: Recorded) -> None:
    assert recorded.guessed[-1].reason == "invalid_credentials"


def test_both_doors_write_down_the_same(recorded: Recorded) -> None:
    by_request: dict[str, dict[str, Any]] = defaultdict(dict)
    for line in recorded.write("table", "table/").read_text().splitlines():
        written = json.loads(line)
        assert written["shadow"] == (written["door"] == DOORS[recorded.shadow])
        by_request[written["request"]][written["door"]] = {
            name: value for name, value in written.items() if name not in _NOT_COMPARED
        }
    assert by_request.keys() == recorded.answers.keys()
    for name, doors in by_request.items():
        assert doors["envoy"] == doors["mixer"], name


def test_compare_finds_no_difference(recorded: Recorded) -> None:
    code, found = recorded.compare("equal", "table/", "quota/")
    assert (code, found["different"], found["only"], found["unusable_lines"]) == (0, [], {}, 0)
    assert sum(found["equal"].values()) == len(recorded.answers) + 2
    assert found["equal"].keys() >= set(recorded.outcomes.values()) - {ALLOWED} | {"allow"}


def test_a_check_and_its_quota_are_one_answer(recorded: Recorded) -> None:
    code, found = recorded.compare("quota", "quota/")
    assert (code, found["different"]) == (0, [])
    assert found["equal"] == {"allow": 1, "rate_limited": 1}
    # Who decides grants one; the shadow never refuses.
    assert recorded.granted == ([1, 0] if recorded.shadow == "grpc" else [1, 1])


def test_compare_finds_what_only_one_door_was_told(recorded: Recorded) -> None:
    code, found = recorded.compare("seeded", "seeded/")
    assert code == 1
    told = {
        (one["envoy"], one["mixer"], one["requests"], *one["examples"])
        for one in found["different"]
    }
    assert told == {
        ("allow", "insufficient_scope", 1, "seeded/scope"),
        ("missing_credentials", "blocked", 1, "seeded/key"),
    }
    assert found["only"] == {DOORS[recorded.shadow]: 1}
