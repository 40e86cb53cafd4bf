"""The events that Thanx posts to a partner's URL: signed, best effort, never retried."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from datetime import datetime

import aiohttp
import attrs
import orjson

from thanx_async.emulator import checks
from thanx_async.emulator.checks import Setting, SettingError
from thanx_async.emulator.clock import Clock
from thanx_async.emulator.guests import Guests
from thanx_async.emulator.jobs import Job
from thanx_async.emulator.oddities import Oddity, altered

_CONCURRENCY = 20
_TIMEOUT = aiohttp.ClientTimeout(total=15)


def sign(body: bytes, secret: str) -> str:
    """The X-Thanx-Signature of a webhook: the HMAC-SHA256 of its raw body, in hexadecimal."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@attrs.frozen
class Webhooks:
    """Where the emulator posts its events, what they hold, and their faults by rate and seed.

    Args:
        url: the URL that events are posted to.
        secret: signs the events.
        reward_issued: whether to also post an event for each reward, not only one for each job.
        merchant_id: whether these events name the merchant; Thanx's documentation shows both forms.
        purchases: rate of rewards followed by an event about a purchase, without ``event`` at its top.
        seed: the seed of the random numbers.
        lost: rate of events that are never sent.
        duplicated: rate of events that are sent twice.
        late: rate of events that are delayed, so that others overtake them.
        late_by: the longest delay, in seconds.
        early: rate of jobs whose 202 is held back until their last event is sent.
        odd: rate of jobs whose last event is odd.
        oddities: what is odd about them, each as likely as the others.
    """

    url: str
    secret: str = attrs.field(repr=False)
    reward_issued: bool = True
    merchant_id: bool = True
    purchases: float = 0
    seed: int = 0
    lost: float = 0
    duplicated: float = 0
    late: float = 0
    late_by: float = 5.0
    early: float = 0
    odd: float = 0
    oddities: tuple[Oddity, ...] = tuple(Oddity)

    def __attrs_post_init__(self) -> None:
        checks.text("Webhooks.url", self.url)
        if not self.url.startswith(("http://", "https://")):
            raise SettingError(Setting("Webhooks.url"), " must begin with http:// or https://")
        checks.text("Webhooks.secret", self.secret)
        checks.instance("Webhooks.reward_issued", self.reward_issued, bool)
        checks.instance("Webhooks.merchant_id", self.merchant_id, bool)
        checks.whole("Webhooks.seed", self.seed, None)
        for name in ("purchases", "lost", "duplicated", "late", "early", "odd"):
            checks.rate(f"Webhooks.{name}", getattr(self, name))
        checks.seconds("Webhooks.late_by", self.late_by)
        checks.instance("Webhooks.oddities", self.oddities, tuple)
        for oddity in self.oddities:
            checks.instance("Webhooks.oddities", oddity, Oddity)
        if not self.oddities:
            raise SettingError(Setting("Webhooks.oddities"), " must name at least one")


class Post:
    """Sends the events of jobs from its start until it is closed. It owns all of its tasks."""

    def __init__(self, clock: Clock) -> None:
        self.sent: Tally[str] = Tally()
        self._clock = clock
        self._settings: Webhooks | None = None
        self._random = random.Random()  # noqa: S311 - seeded with the settings
        self._owner: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._slots = asyncio.Semaphore(_CONCURRENCY)

    @property
    def settings(self) -> Webhooks | None:
        return self._settings

    @settings.setter
    def settings(self, settings: Webhooks | None) -> None:
        self._settings = settings
        if settings:
            self._random = random.Random(settings.seed)  # noqa: S311 - repeatable on purpose

    async def start(self) -> None:
        self._ready = asyncio.Event()
        self._slots = asyncio.Semaphore(_CONCURRENCY)
        self._owner = asyncio.create_task(self._run())
        await self._ready.wait()

    async def close(self) -> None:
        """Stop, dropping events not sent yet."""
        if self._owner:
            owner, self._owner = self._owner, None
            owner.cancel()
            await asyncio.wait([owner])

    async def _run(self) -> None:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, asyncio.TaskGroup() as group:
            self._session, self._group = session, group
            self._ready.set()
            await asyncio.Event().wait()

    async def announce(self, job: Job, guests: Guests, campaign: Mapping[str, object]) -> None:
        """Send a job's events at their times. Returns at once, or for an early job once all are sent."""
        settings = self._settings
        if settings is None:
            return
        early = self._random.random() < settings.early
        task = self._group.create_task(self._follow(settings, job, guests, campaign))
        if early:
            await asyncio.wait([task])

    async def _follow(
        self, settings: Webhooks, job: Job, guests: Guests, campaign: Mapping[str, object]
    ) -> None:
        async with asyncio.TaskGroup() as group:
            if settings.reward_issued or settings.purchases:
                for index, data in _rewards(job, guests, campaign):
                    await self._clock.sleep(job.reached(index + 1) - self._clock.now())
                    await self._announce_reward(group, settings, data, guests.values[index])
        if job.fate.ends:
            await self._clock.sleep(job.ended - self._clock.now())
            async with asyncio.TaskGroup() as group:
                await self._announce_end(group, settings, job, guests)

    async def _announce_end(
        self, group: asyncio.TaskGroup, settings: Webhooks, job: Job, guests: Guests
    ) -> None:
        event = self._event(settings, "reward_batch.completed", _batch(job))
        if settings.odd and self._random.random() < settings.odd:
            oddity = self._random.choice(settings.oddities)
            self.sent[f"odd: {oddity}"] += 1
            event = altered(event, oddity, guests.values)
            if oddity is Oddity.FORGED:
                settings = attrs.evolve(settings, secret=f"not {settings.secret}")
        await self._emit(group, settings, "reward_batch.completed", event)

    async def _announce_reward(
        self, group: asyncio.TaskGroup, settings: Webhooks, data: dict[str, object], guest: str
    ) -> None:
        if settings.reward_issued:
            event = self._event(settings, "reward.issued", data)
            await self._emit(group, settings, "reward.issued", event)
        if settings.purchases and self._random.random() < settings.purchases:
            bought_at = self._clock.wall(self._clock.now())
            await self._emit(group, settings, "purchase", _purchase(data, guest, bought_at))

    def _event(self, settings: Webhooks, event: str, data: dict[str, object]) -> dict[str, object]:
        shown = {name: value for name, value in data.items() if name != "merchant_id" or settings.merchant_id}
        return {"event": event, "timestamp": self._clock.iso(self._clock.now()), "data": shown}

    async def _emit(
        self, group: asyncio.TaskGroup, settings: Webhooks, event: str, payload: dict[str, object]
    ) -> None:
        """Send an event once, twice or not at all, each copy with its own delay."""
        lost, twice, *late = (self._random.random() for _ in range(6))
        body = orjson.dumps(payload)
        if lost < settings.lost:
            self.sent["lost"] += 1
            return
        for copy in range(2 if twice < settings.duplicated else 1):
            delay = settings.late_by * late[copy + 2] if late[copy] < settings.late else 0
            if delay:
                self._group.create_task(self._later(settings, event, body, delay))
            else:
                await self._slots.acquire()
                group.create_task(self._send(settings, event, body))

    async def _later(self, settings: Webhooks, event: str, body: bytes, delay: float) -> None:
        await self._clock.sleep(delay)
        await self._slots.acquire()
        await self._send(settings, event, body)

    async def _send(self, settings: Webhooks, event: str, body: bytes) -> None:
        """Make one attempt, as Thanx does; releases the slot that the caller took."""
        headers = {"Content-Type": "application/json", "X-Thanx-Signature": sign(body, settings.secret)}
        self.sent[event] += 1
        try:
            async with self._session.post(
                settings.url, data=body, headers=headers, allow_redirects=False
            ) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            self.sent["undelivered"] += 1
        finally:
            self._slots.release()


def _rewards(
    job: Job, guests: Guests, campaign: Mapping[str, object]
) -> Iterator[tuple[int, dict[str, object]]]:
    """The data of each reward, by the guest's index."""
    failed = {failure.index for failure in job.failures}
    variants = campaign["variants"]
    assert isinstance(variants, list)  # noqa: S101 - from the catalogue
    variant = next(row for row in variants if row["id"] == job.variant_id)
    shown = {name: value for name, value in campaign.items() if name != "variants"} | {"variant": variant}
    for index in range(job.fate.processed):
        if index not in failed:
            yield (
                index,
                {
                    "issuance_job_id": job.id,
                    "merchant_id": job.merchant_id,
                    "reward_id": f"{job.id}r{index}",
                    "identifier": {"type": guests.kinds[index], "index": index},
                    "user_id": hashlib.sha256(guests.values[index].encode()).hexdigest()[:15],
                    "state": "active",
                    "expires_at": campaign["redeemable_to"],
                    "campaign": shown,
                },
            )


def _purchase(reward: Mapping[str, object], guest: str, at: datetime) -> dict[str, object]:
    user = {"id": reward["user_id"], "email": guest if "@" in guest else None}
    return {
        "purchase": {
            "id": f"{reward['reward_id']}p",
            "amount": "7.50",
            "purchased_at": at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "event": "create",
            "user": user | {"first_name": None, "last_name": None},
            "merchant": {"id": reward["merchant_id"], "name": None},
            "location": {},
            "order": {},
            "products": [],
        }
    }


def _batch(job: Job) -> dict[str, object]:
    failed = job.failed(job.fate.processed)
    return {
        "issuance_job_id": job.id,
        "merchant_id": job.merchant_id,
        "state": job.fate.state,
        "total_count": job.total,
        "issued_count": job.fate.processed - failed,
        "failed_count": failed,
        "failures": [{"user_identifier": row.value, "reason": row.reason} for row in job.failures[:failed]],
    }
