from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import Principal
from gateway.limits import Limit
from gateway.metering import Metering
from gateway.settings import Team
from gateway.state.meters import Meter

REQUESTS = Limit(requests=600, per="minute")


def metering(*total: Limit, **teams: Team) -> Metering:
    return Metering({"requests": (REQUESTS,)}, total, teams)


def told(meters: tuple[Meter, ...]) -> list[tuple[str, str, str, int]]:
    return [(meter.whose, meter.owner, meter.unit, meter.limit) for meter in meters]


def test_a_key_without_limits_has_the_defaults() -> None:
    plan = metering().known(Principal("alice")).plan("m")
    assert told(plan.meters) == [("key", "alice", "requests", 600)]
    assert plan.still == (1,)


def test_own_limits_take_the_place_of_defaults_of_their_unit() -> None:
    day = Limit(requests=1000, per="day")
    plan = metering().known(Principal("alice", limits=(day,))).plan("m")
    assert told(plan.meters) == [("key", "alice", "requests", 1000)]
    both = metering().known(Principal("alice", requests_per_minute=5, limits=(day,))).plan("m")
    assert told(both.meters) == [("key", "alice", "requests", 5), ("key", "alice", "requests", 1000)]
    assert metering().known(Principal("alice", requests_per_minute=0)).plan("m").meters == ()
    assert metering().known(Principal("alice", limits=(Limit(requests=0, per="day"),))).plan("m").meters == ()


def test_teams_and_all_count_besides() -> None:
    team = Team(tokens_per_minute=9, budget=Limit(usd=1, per="day"))
    plan = metering(Limit(concurrency=7), red=team).known(Principal("alice", team="red")).plan("m")
    assert told(plan.meters) == [
        ("all", "", "concurrency", 7), ("key", "alice", "requests", 600), ("team", "red", "tokens", 9),
        ("team", "red", "usd", 10**9),
    ]  # fmt: skip
    assert plan.tokens and plan.money and plan.still is None


def test_limits_of_models_count_for_theirs_together_or_each_for_itself() -> None:
    limits = (Limit(requests=1, per="day", models=("gpt-*",)), Limit(requests=2, per="hour", per_model=True))
    known = metering().known(Principal("alice", limits=limits))
    four, five, other = (known.plan(model).meters for model in ("gpt-4", "gpt-5", "llama3"))
    assert [len(four), len(five), len(other)] == [2, 2, 1]
    keys = [{meter.per: meter.key for meter in meters} for meters in (four, five, other)]
    assert keys[0]["day"] == keys[1]["day"]
    assert len({each["hour"] for each in keys}) == 3


def test_the_same_principal_is_learnt_once() -> None:
    ours, alice = metering(), Principal("alice")
    assert ours.known(alice) is ours.known(alice)
    assert ours.known(Principal("alice", requests_per_minute=1)).plan(None).meters[0].limit == 1


NAMES = st.text(st.sampled_from("ab:,1 é"), max_size=6).map(lambda text: unicodedata.normalize("NFD", text)) | st.text(
    st.sampled_from("ab:,1é"), max_size=6
)


@given(NAMES, NAMES, NAMES, NAMES)
def test_r49_different_things_never_share_a_counter(name: str, team: str, other: str, others: str) -> None:
    def keys(name: str, team: str) -> set[str]:
        ours = Metering({"requests": (REQUESTS,)}, (), {team: Team(requests_per_minute=1)})
        return {meter.key for meter in ours.known(Principal(name, team=team)).plan(None).meters}

    shared = keys(name, team) & keys(other, others)
    assert len(shared) == (name == other) + (team == others)


def test_teams_are_looked_at_anew_when_they_are_forgotten() -> None:
    teams = {"red": Team(max_concurrency=1)}
    metering = Metering({}, (), teams)
    alice = Principal("alice", team="red")
    assert [meter.limit for meter in metering.known(alice).plan(None).meters] == [1]
    teams["red"] = Team(max_concurrency=2)
    assert [meter.limit for meter in metering.known(alice).plan(None).meters] == [1]
    metering.forget()
    assert [meter.limit for meter in metering.known(alice).plan(None).meters] == [2]
