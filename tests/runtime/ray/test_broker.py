"""The broker's promises, without a cluster: an asynchronous class like any other."""

import asyncio
from typing import Any

import pytest

from orchestrator.runtime.ray.broker import KEPT_STAGES, MAX_ATTEMPTS, Broker

STAGE = {"name": "target"}


def play(story: Any) -> None:
    """Run a coroutine function on a fresh broker; it must end soon."""
    asyncio.run(asyncio.wait_for(story(Broker()), 10))


async def news(broker: Broker, key: str) -> dict[str, Any]:
    found = await broker.follow(key, 0, 0.01)
    assert found is not None
    return found


def test_a_stage_that_two_want_is_built_once_in_the_order_of_priority() -> None:
    async def story(broker: Broker) -> None:
        assert await broker.submit(STAGE, "low", "p", 1)
        assert await broker.submit({"name": "judge"}, "high", "p", 9)
        assert not await broker.submit(STAGE, "low", "p", 1)
        await broker.begin("g", "p")
        assert await broker.take("g", 0, 0) == {"name": "judge"}
        await broker.finish("g", "high", None, True)
        assert await broker.take("g", 0, 1) == STAGE
        await broker.finish("g", "low", None, True)
        assert (await news(broker, "low"))["done"]
        assert (await broker.state())["built"] == 2

    play(story)


def test_a_group_takes_from_its_own_pool_only() -> None:
    async def story(broker: Broker) -> None:
        await broker.begin("g", "big")
        taking = asyncio.create_task(broker.take("g", 0, 0))
        await broker.submit(STAGE, "a", "small", 1)
        await asyncio.sleep(0.01)
        assert not taking.done()
        assert (await broker.state())["queued"] == {"small": 1}
        await broker.submit({"name": "judge"}, "b", "big", 1)
        assert await taking == {"name": "judge"}

    play(story)


def test_every_rank_is_told_what_rank_0_took() -> None:
    async def story(broker: Broker) -> None:
        await broker.begin("g", "p")
        second = asyncio.create_task(broker.take("g", 1, 0))
        await broker.submit(STAGE, "a", "p", 1)
        assert await broker.take("g", 0, 0) == STAGE
        assert await second == STAGE

    play(story)


def test_a_stage_goes_back_when_its_group_dies_and_fails_when_it_always_does() -> None:
    async def story(broker: Broker) -> None:
        await broker.submit(STAGE, "a", "p", 1)
        for _ in range(MAX_ATTEMPTS):
            await broker.begin("g", "p")
            assert await broker.take("g", 0, 0) == STAGE
        await broker.lose("g")
        error = (await news(broker, "a"))["error"]
        assert error["kind"] == "lost"
        assert f"died {MAX_ATTEMPTS} times at the same place" in error["message"]

    play(story)


def test_what_the_call_of_a_dead_rank_takes_goes_to_others() -> None:
    """Ray goes on with the calls of a worker that died; its group had waited for work, and begins again."""

    async def story(broker: Broker) -> None:
        await broker.begin("g", "p")
        dead = asyncio.create_task(broker.take("g", 0, 0))
        await asyncio.sleep(0.01)
        await broker.begin("g", "p")
        alive = asyncio.create_task(broker.take("g", 0, 0))
        await asyncio.sleep(0.01)  # both wait, the dead one first
        await broker.submit(STAGE, "a", "p", 1)
        assert await alive == STAGE
        with pytest.raises(LookupError, match="begun again"):
            await dead
        await broker.begin("g", "p")  # attempts: the dead one's does not count
        for _ in range(MAX_ATTEMPTS - 1):
            assert await broker.take("g", 0, 0) == STAGE
            await broker.begin("g", "p")
        assert (await news(broker, "a"))["error"]["kind"] == "lost"

    play(story)


@pytest.mark.parametrize("end", [Broker.lose, Broker.abandon])
def test_the_waiting_call_of_a_group_that_is_gone_takes_nothing(end: Any) -> None:
    async def story(broker: Broker) -> None:
        await broker.begin("gone", "p")
        waits = asyncio.create_task(broker.take("gone", 0, 0))
        await asyncio.sleep(0.01)
        await end(broker, "gone")
        await broker.submit(STAGE, "a", "p", 1)
        with pytest.raises(LookupError, match="given up"):
            await waits
        await broker.begin("g", "p")
        assert await broker.take("g", 0, 0) == STAGE

    play(story)


def test_what_a_given_up_group_has_built_is_not_taken_again() -> None:
    async def story(broker: Broker) -> None:
        await broker.submit(STAGE, "a", "p", 1)
        await broker.begin("slow", "p")
        assert await broker.take("slow", 0, 0) == STAGE
        await broker.abandon("slow")  # the stage is queued again
        await broker.finish("slow", "a", None, True)
        await broker.leave("a", False)  # published, and forgotten
        await broker.submit({"name": "judge"}, "b", "p", 1)
        await broker.begin("g", "p")
        assert await broker.take("g", 0, 0) == {"name": "judge"}

    play(story)


def test_a_stage_that_is_asked_for_again_is_in_the_queue_once() -> None:
    async def story(broker: Broker) -> None:
        await broker.submit(STAGE, "a", "p", 1)
        await broker.begin("slow", "p")
        await broker.take("slow", 0, 0)
        await broker.abandon("slow")  # the stage is queued again
        await broker.finish("slow", "a", {"kind": "corrupt", "message": "an input is damaged"}, False)
        await broker.submit(STAGE, "a", "p", 1)  # and once more, as a new attempt
        await broker.submit({"name": "judge"}, "b", "p", 0)
        for group in ("g", "h"):
            await broker.begin(group, "p")
        assert await broker.take("g", 0, 0) == STAGE
        assert await broker.take("h", 0, 0) == {"name": "judge"}

    play(story)


def test_deaths_do_not_count_while_the_stage_comes_further() -> None:
    async def story(broker: Broker) -> None:
        await broker.submit(STAGE, "a", "p", 1)
        for epoch in range(1, 3 * MAX_ATTEMPTS):
            await broker.begin("g", "p")
            assert await broker.take("g", 0, 0) == STAGE
            assert await broker.report("a", {"epoch": epoch})
        for _ in range(MAX_ATTEMPTS - 1):  # the last epoch again, and no further
            await broker.begin("g", "p")
            assert not (await news(broker, "a"))["done"]
            await broker.take("g", 0, 0)
            await broker.report("a", {"epoch": 1})
        await broker.begin("g", "p")
        assert (await news(broker, "a"))["error"]["kind"] == "lost"

    play(story)


def test_a_dismissed_group_gives_back_what_it_saved_and_another_goes_on() -> None:
    async def story(broker: Broker) -> None:
        await broker.submit(STAGE, "a", "p", 1)
        await broker.begin("g", "p")
        await broker.take("g", 0, 0)
        listening = asyncio.create_task(broker.must_leave("g", 5.0))
        await broker.dismiss(["g", "unknown"])
        assert await listening
        await broker.finish("g", "a", {"kind": "left", "message": "left in epoch 1"}, True)
        assert await broker.take("g", 0, 1) is None
        await broker.lose("g")
        await broker.begin("h", "p")
        assert await broker.take("h", 0, 0) == STAGE

    play(story)


def test_the_stage_of_a_group_whose_node_is_gone_goes_to_another_at_once() -> None:
    async def story(broker: Broker) -> None:
        await broker.submit(STAGE, "a", "p", 1)
        await broker.begin("g", "p")
        await broker.arrive("g", "node")
        await broker.take("g", 0, 0)
        await broker.abandon("g")
        await broker.abandon("unknown")
        assert (await broker.state())["groups"]["g"] == {"pool": "p", "building": None, "nodes": []}
        await broker.begin("h", "p")
        assert await broker.take("h", 0, 0) == STAGE
        await broker.begin("g", "p")  # it has found a place, and nothing to take back
        await broker.finish("h", "a", None, True)
        assert (await news(broker, "a"))["done"]
        assert (await broker.state())["queued"] == {"p": 0}

    play(story)


def test_a_group_that_is_asked_nothing_hears_nothing() -> None:
    async def story(broker: Broker) -> None:
        await broker.begin("g", "p")
        assert not await broker.must_leave("g", 0.01)
        assert not await broker.must_leave("unknown", 0.01)

    play(story)


def test_a_halt_waits_for_what_is_built_and_ends_the_rest() -> None:
    async def story(broker: Broker) -> None:
        await broker.submit(STAGE, "built", "p", 2)
        await broker.submit(STAGE, "queued", "p", 1)
        await broker.begin("g", "p")
        await broker.take("g", 0, 0)
        await broker.halt()
        assert await broker.must_leave("g", 1.0)
        assert (await news(broker, "queued"))["error"]["kind"] == "left"
        assert not (await news(broker, "built"))["done"]
        await broker.finish("g", "built", {"kind": "left", "message": "left"}, True)
        assert (await news(broker, "built"))["error"]["kind"] == "left"
        await broker.submit(STAGE, "late", "p", 1)
        assert (await news(broker, "late"))["error"]["kind"] == "left"

    play(story)


def test_a_broker_that_forgot_everything_is_told_again() -> None:
    async def story(broker: Broker) -> None:
        assert await broker.follow("a", 0, 0.01) is None
        assert await broker.report("a", {"epoch": 1})
        await broker.leave("a", True)
        await broker.lose("g")
        for question in (
            broker.take("g", 0, 3),
            broker.finish("g", "a", None, True),
            broker.arrive("g", "n"),
        ):
            with pytest.raises(LookupError, match="worker group g is unknown to the broker; it begins again"):
                await question

    play(story)


def test_who_will_never_be_served_fails_with_the_reason() -> None:
    async def story(broker: Broker) -> None:
        await broker.submit(STAGE, "a", "p", 1)
        await broker.submit(STAGE, "b", "q", 1)
        await broker.give_up("p", "no room came for 1 GPU")
        assert (await news(broker, "a"))["error"] == {
            "kind": "lost",
            "message": "no room came for 1 GPU",
        }
        assert not (await news(broker, "b"))["done"]
        assert await broker.submit(STAGE, "a", "p", 1), "who asks again is queued again"

    play(story)


def test_what_is_published_and_waited_for_by_nobody_is_forgotten() -> None:
    async def story(broker: Broker) -> None:
        await broker.begin("g", "p")
        for number in range(100):
            await broker.submit(STAGE, str(number), "p", 1)
            await broker.submit(STAGE, str(number), "p", 1)
            assert await broker.take("g", 0, number) == STAGE
            await broker.report(str(number), {"epoch": 1})
            await broker.finish("g", str(number), None, True)
            await broker.leave(str(number), False)
            assert (await news(broker, str(number)))["ran"], "another driver still reads how it ended"
            await broker.leave(str(number), False)
        assert (await broker.state())["built"] == 100
        assert not broker._jobs
        assert len(broker._groups["g"].assigned) == KEPT_STAGES
        assert await broker.take("g", 1, 99) == STAGE
        with pytest.raises(LookupError):  # a rank that far behind: its group begins again
            await broker.take("g", 1, 0)

    play(story)


def test_what_has_ended_is_listed_once_and_again_after_a_restart() -> None:
    async def story(broker: Broker) -> None:
        await broker.begin("g", "p")
        for number, key in enumerate("ab"):
            await broker.submit(STAGE, key, "p", 1)
            await broker.take("g", 0, number)
            await broker.finish("g", key, None, True)
        assert [await broker.ended(since) for since in (0, 1, 2)] == [["a", "b"], ["b"], []]
        assert await broker.ended(3) == ["a", "b"]  # asked by one who knew a broker before this one

    play(story)


def test_a_failed_stage_is_remembered() -> None:
    async def story(broker: Broker) -> None:
        await broker.submit(STAGE, "a", "p", 1)
        await broker.begin("g", "p")
        await broker.take("g", 0, 0)
        await broker.finish("g", "a", {"kind": "error", "message": "nan"}, True)
        await broker.leave("a", False)
        assert not await broker.submit(STAGE, "a", "p", 1)
        assert (await news(broker, "a"))["error"]["message"] == "nan"

    play(story)


def test_who_follows_the_end_alone_is_not_woken_by_progress() -> None:
    async def story(broker: Broker) -> None:
        await broker.submit(STAGE, "a", "p", 1)
        await broker.begin("g", "p")
        await broker.take("g", 0, 0)
        following = asyncio.create_task(broker.follow("a", None, 5.0))
        await broker.report("a", {"epoch": 1})
        await asyncio.sleep(0.01)
        assert not following.done()
        await broker.finish("g", "a", None, True)
        assert await following == {"progress": [], "done": True, "error": None, "ran": True}

    play(story)


def test_a_retired_group_ends_after_its_stage_and_one_that_starts_before_its_first() -> None:
    async def story(broker: Broker) -> None:
        for key in ("a", "b"):
            await broker.submit(STAGE, key, "p", 1)
        await broker.begin("g", "p")
        assert await broker.take("g", 0, 0) == STAGE
        await broker.retire(["g", "coming"])
        assert not await broker.must_leave("g", 0.01)  # its stage goes on
        await broker.finish("g", "a", None, True)
        assert await broker.take("g", 0, 1) is None
        await broker.begin("coming", "p")
        assert await broker.take("coming", 0, 0) is None
        assert (await broker.state())["queued"] == {"p": 1}
        assert not (await news(broker, "b"))["done"]

    play(story)


def test_an_idle_group_that_is_retired_ends_at_once() -> None:
    async def story(broker: Broker) -> None:
        await broker.begin("g", "p")
        taking = asyncio.create_task(broker.take("g", 0, 0))
        await asyncio.sleep(0.01)
        await broker.retire(["g"])
        assert await taking is None

    play(story)


def test_a_halted_sweep_has_nothing_queued_that_a_group_would_start_for() -> None:
    async def story(broker: Broker) -> None:
        for key in ("a", "b"):
            await broker.submit(STAGE, key, "p", 1)
        await broker.begin("g", "p")
        assert await broker.take("g", 0, 0) == STAGE
        await broker.halt()
        assert await broker.must_leave("g", 1.0)
        await broker.finish("g", "a", {"kind": "left", "message": "preempted"}, True)
        assert [(await news(broker, key))["error"]["kind"] for key in ("a", "b")] == ["left", "left"]
        assert not any((await broker.state())["queued"].values())

    play(story)


def test_a_stage_that_is_queued_again_counts_those_who_still_read_its_end() -> None:
    async def story(broker: Broker) -> None:
        await broker.begin("g", "p")
        await broker.submit(STAGE, "a", "p", 1)
        await broker.take("g", 0, 0)
        await broker.finish("g", "a", None, True)
        assert await broker.submit(STAGE, "a", "p", 1)  # by one who found it missing just before
        await broker.leave("a", True)  # the first, which its scheduler stopped
        assert await broker.report("a", {"epoch": 1}), "the second still wants it"
        await broker.leave("a", True)
        assert not await broker.report("a", {"epoch": 2})

    play(story)


def test_a_group_whose_stage_another_has_built_is_idle() -> None:
    async def story(broker: Broker) -> None:
        await broker.submit(STAGE, "a", "p", 1)
        for number, group in enumerate("gh"):
            await broker.begin(group, "p")
            await broker.take(group, 0, 0)
            if number == 0:
                await broker.abandon(group)  # it still runs: its node was only out of reach
        await broker.finish("g", "a", None, True)
        await broker.leave("a", False)
        await broker.finish("h", "a", None, False)
        assert (await broker.state())["groups"]["h"]["building"] is None

    play(story)
