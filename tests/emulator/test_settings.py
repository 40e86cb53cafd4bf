"""Settings that cannot be: refused where they are given, and named."""

import pickle
import re
from math import inf, nan

import aiohttp
import attrs
import pytest

from tests.emulator.plain import ISSUE, Json, body, call
from tests.helpers import MERCHANT, SECRET
from thanx_async.emulator import Counter, Emulator, Faults, JobSpeed, ScriptedAnswer, SettingError, Webhooks
from thanx_async.emulator.counters import referee

SETTINGS: dict[type, Json] = {
    Faults: {},
    JobSpeed: {},
    ScriptedAnswer: {},
    Webhooks: {"url": "http://x", "secret": SECRET},
}
NUMBERS = [
    (kind, field.name) for kind in SETTINGS for field in attrs.fields(kind) if "float" in str(field.type)
]
WHOLE = [
    (Faults, "seed"),
    (Faults, "burst_requests"),
    (ScriptedAnswer, "status"),
    (Webhooks, "seed"),
]


def test_every_number_is_covered() -> None:
    """Whatever is added is checked as well."""
    assert len(NUMBERS) == 17 + 3 + 1 + 7


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
@pytest.mark.parametrize("value", [nan, inf, -inf, -1, "1", True])
def test_numbers(kind: type, name: str, value: object) -> None:
    """Neither what is no number nor what no clock and no dice can work with."""
    shown = str(value) if type(value) in {int, float} else type(value).__name__
    with pytest.raises(ValueError, match=rf"^{kind.__name__}\.{name} must be .*\d.*, not {shown}$"):
        kind(**SETTINGS[kind] | {name: value})


@pytest.mark.parametrize(("kind", "name"), WHOLE)
@pytest.mark.parametrize("value", [1.0, nan, "1", False])
def test_whole_numbers(kind: type, name: str, value: object) -> None:
    """No fraction, and no flag either."""
    with pytest.raises(ValueError, match=rf"^{kind.__name__}\.{name} must be a whole number"):
        kind(**SETTINGS[kind] | {name: value})


def test_the_bounds_themselves() -> None:
    """What is just possible is taken."""
    Faults(seed=-1, reset_before=1, delay_rate=0, delay=1e9, retry_after=0, forget_keys_after=None)
    JobSpeed(1e-300, 0, 1e9)
    Webhooks("https://x", SECRET, lost=1, duplicated=0, late_by=0)
    Emulator(limits=[(1, 0.001), (10**9, 1e9)], counter=Counter.LEAKY, burst=0, port=65_535)


async def test_the_fastest_jobs(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """However fast, a job has processed nobody before it starts, and all when it is done."""
    emulator.speed = JobSpeed(1e308, start_delay=20)
    status, answer = await call(http, "POST", ISSUE, body=body("a@b.co"))
    job = answer["issuance_job"]
    assert isinstance(job, dict)
    assert (status, job["processed_count"]) == (202, 0)
    emulator.advance(30)
    path = f"/partner/issuance_jobs/{job['id']}?merchant_id={MERCHANT}"
    job = (await call(http, "GET", path))[1]["issuance_job"]
    assert isinstance(job, dict)
    assert (job["state"], job["processed_count"]) == ("completed", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"port": "x"}, "Emulator.port must be a whole number from 0 to 65,535, not str"),
        ({"port": -1}, "Emulator.port must be a whole number from 0 to 65,535, not -1"),
        ({"port": 65_536}, "Emulator.port must be a whole number from 0 to 65,535, not 65536"),
        ({"port": 80.0}, "Emulator.port must be a whole number from 0 to 65,535, not 80.0"),
        ({"host": 1}, "Emulator.host must be text, not 1"),
        ({"host": ""}, "Emulator.host is empty"),
        ({"speed": 5}, "Emulator.speed must be JobSpeed, not 5"),
        ({"faults": None}, "Emulator.faults must be Faults, not None"),
        ({"webhooks": "x"}, "Emulator.webhooks must be Webhooks or None, not str"),
        ({"fails": "x"}, "Emulator.fails must be a function of an identifier's type and value, not str"),
        ({"client_id": 5}, "Emulator.client_id must be str or None, not 5"),
        ({"access_token": b"t"}, "Emulator.access_token must be str or None, not bytes"),
        ({"credentials": 5}, "Emulator.credentials must be pairs of a client id and an access token, not 5"),
        ({"credentials": {"c": "t"}}, "Emulator.credentials must be pairs"),
        ({"credentials": "ct"}, "Emulator.credentials must be pairs"),
        (
            {"credentials": [("c", "t"), "ct"]},
            "Emulator.credentials[1] must be a client id and an access token",
        ),
        ({"credentials": [("c", "")]}, "Emulator.credentials[0] must be"),
        (
            {"credentials": [], "client_id": "c"},
            "Emulator.credentials goes with neither Emulator.client_id nor",
        ),
        ({"id_tag": "A"}, "Emulator.id_tag must be up to 20 lower-case letters and digits, not str"),
        ({"id_tag": 5}, "Emulator.id_tag must be up to 20 lower-case letters and digits, not 5"),
        ({"scopes": "rewards.issue"}, "Emulator.scopes must be a set of texts, not str"),
        ({"scopes": {1}}, "Emulator.scopes must be a set of texts, not set"),
        ({"track_guests": "no"}, "Emulator.track_guests must be bool, not str"),
        ({"limits": 5}, "Emulator.limits must be a sequence of pairs, not int"),
        ({"limits": "5/1"}, "Emulator.limits must be a sequence of pairs, not str"),
        ({"limits": [(5, 1.0), 5]}, "Emulator.limits[1] must be 1 to 1,000,000,000 requests in 0.001"),
        ({"limits": [(5, 1.0, 1)]}, "to 1,000,000,000 s, not tuple"),
        ({"limits": [(5, nan)]}, "not 5 in nan s"),
        ({"limits": [(5, inf)]}, "not 5 in inf s"),
        ({"limits": [(5, 0)]}, "not 5 in 0 s"),
        ({"limits": [(0, 1.0)]}, "not 0 in 1.0 s"),
        ({"limits": [(10**30, 1.0)]}, "0 in 1.0 s"),
        ({"limits": [(5.5, 1.0)]}, "Emulator.limits[0] must be 1 to"),
        ({"counter": "x"}, "Emulator.counter must be one of fixed, sliding-log"),
        ({"burst": 4}, "Emulator.burst goes with Counter.LEAKY only"),
        ({"burst": 4, "limits": []}, "Emulator.burst goes with Counter.LEAKY only"),
        ({"counter": Counter.LEAKY, "burst": -1}, "Emulator.burst must be a whole number from 0 to"),
        ({"counter": Counter.LEAKY, "burst": 0.5}, "Emulator.burst must be a whole number from 0 to"),
    ],
)
def test_arguments_of_the_emulator(arguments: Json, message: str) -> None:
    """The message names the argument, and what it must be."""
    with pytest.raises(SettingError, match=re.escape(message)) as caught:
        Emulator(**arguments)  # type: ignore[arg-type]  # on purpose
    twin = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made right here
    assert str(twin).startswith(twin.argument)
    assert twin.argument.startswith("Emulator.")


async def test_a_counter_by_its_name() -> None:
    """A word of the list is as good as the member."""
    emulator = Emulator(limits=[(1, 1.0)], counter="leaky", burst=2)  # type: ignore[arg-type]  # on purpose
    judges = emulator._limits
    assert [judges.admits("c", 0.0) for _ in range(4)] == [True, True, True, False]
    assert type(judges._referees["c"][0]) is type(referee(Counter.LEAKY, 1, 1.0))


@pytest.mark.parametrize("name", ["speed", "faults", "webhooks"])
def test_what_is_set_later(name: str) -> None:
    """It is checked like an argument, and what was set before stays."""
    emulator = Emulator()
    before = getattr(emulator, name)
    with pytest.raises(ValueError, match=rf"Emulator\.{name} must be .*, not 5"):
        setattr(emulator, name, 5)
    assert getattr(emulator, name) is before


@pytest.mark.parametrize("seconds", [nan, inf, -1, "1"])
async def test_skipping_no_time(seconds: float) -> None:
    """The clock goes forward only, and never to where nothing follows."""
    async with Emulator() as emulator:
        with pytest.raises(ValueError, match=r"seconds of Emulator\.advance\(\) must be from 0 to"):
            emulator.advance(seconds)


def test_scripts_hold_answers() -> None:
    """One that is none is refused before any of them counts."""
    emulator = Emulator()
    with pytest.raises(ValueError, match=r"script\(\) must be ScriptedAnswer, not 404"):
        emulator.script(ScriptedAnswer(404), 404)  # type: ignore[arg-type]  # on purpose
    assert not emulator._script
