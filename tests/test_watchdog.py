import asyncio

import pytest

from gateway.errors import GatewayError, Overloaded, UpstreamTimeout
from gateway.watchdog import Guard, Watchdog


async def guarded(watchdog: Watchdog, seconds: float, work: float) -> str:
    guard = Guard(asyncio.current_task())  # type: ignore[arg-type]
    watchdog.guards.add(guard)
    guard.arm(seconds, lambda: UpstreamTimeout("late"))
    try:
        await asyncio.sleep(work)
        guard.disarm()
        await asyncio.sleep(work)
        return "done"
    except asyncio.CancelledError:
        error = guard.caught()
        if error is None:
            raise
        return error.message
    finally:
        watchdog.guards.discard(guard)


async def test_a_limit_that_passes_is_told_and_others_run_on() -> None:
    watchdog = Watchdog()
    running = asyncio.create_task(watchdog.run())
    late, fine, endless = await asyncio.gather(
        guarded(watchdog, 0.1, 5), guarded(watchdog, 5, 0.3), guarded(watchdog, 0, 0.3)
    )
    running.cancel()
    assert (late, fine, endless) == ("late", "done", "done")
    assert not watchdog.guards


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    watchdog = Watchdog()
    task = asyncio.create_task(guarded(watchdog, 5, 5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_only_the_first_reason_counts() -> None:
    async def wait() -> GatewayError | None:
        guards.append(Guard(asyncio.current_task()))  # type: ignore[arg-type]
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return guards[0].caught()
        return None

    guards: list[Guard] = []
    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    guards[0].fire(Overloaded("first"))
    guards[0].fire(Overloaded("second"))
    told = await task
    assert told is not None and told.message == "first"
    assert task.cancelling() == 0


async def test_a_split_guard_is_watched_until_each_of_both_is_closed() -> None:
    watchdog = Watchdog()
    task = asyncio.create_task(asyncio.sleep(5))
    first = Guard(task, watchdog.guards)
    second = first.split()
    first.arm(5, lambda: UpstreamTimeout("late"))
    assert watchdog.guards == {first, second}
    assert (second.task, second.at, second.error) == (task, float("inf"), None)
    first.close()
    assert watchdog.guards == {second}
    second.close()
    assert not watchdog.guards
    task.cancel()
