"""What phases of prompts add to a server's memory, from probes whose growth is known."""

from __future__ import annotations

from mforce.benchmarks.soak_memory import core_prompt, growth


def probe(phase: str, prompts: int, resident: int, tuples: int, traced: dict[str, int]) -> dict:
    figures = {"phase": phase, "prompts": prompts, "resident": resident, "python_blocks": 10 * prompts}
    figures |= {"in_use": 0, "free": 5, "history": 100 * prompts, "cache_keys": {"keys": 3 * prompts}}
    return figures | {"objects": {"tuple": tuples}, "traced": traced}


def test_growth_is_that_of_the_phases_of_a_kind_alone() -> None:
    found = [
        probe("warm-up", 10, 10**6, 5, {"pack": 9}),
        probe("pack", 20, 3 * 10**6, 25, {"pack": 100_009, "python": 7}),
        probe("core", 30, 10**9, 10**6, {"pack": 100_009, "python": 7}),
        probe("pack", 40, 10**9 + 4 * 10**6, 10**6 + 40, {"pack": 100_009, "python": 7}),
        probe("history cleared", 0, 1, 1, {}),
    ]
    pack = growth(found, "pack")
    assert pack["prompts"] == 20
    assert pack["megabytes_per_hundred"] == {"resident": 30.0, "in_use": 0.0, "free": 0.0, "history": 0.01}
    assert pack["objects_per_prompt"] == {"tuple": 3.0}
    assert pack["cache_keys_per_prompt"] == {"keys": 3.0, "with_output": 0, "bytes": 0}
    # What was not there before a phase is not counted for it.
    assert pack["traced_megabytes_per_hundred"] == {"pack": 0.5}
    assert growth(found, "core")["prompts"] == 10
    assert growth(found, "none") == {}


def test_core_prompts_differ_and_know_their_files() -> None:
    prompts = [core_prompt(number) for number in range(30)]
    assert len({str(prompt.nodes) for prompt in prompts}) == 30
    assert {prompt.files for prompt in prompts} == {1, 2, 3}
    assert all(len(prompt.nodes) == 13 for prompt in prompts)
