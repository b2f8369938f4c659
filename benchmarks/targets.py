"""What this project wants to show on a data-center GPU with the 12 B model, and how much of it a report shows."""

from collections.abc import Iterable
from typing import Any

_OURS = "mforce"


def targets(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows with ``target``, ``wanted``, ``measured`` and ``met``, for what the report holds; none on CPUs and for other
    models, which the targets are not about."""
    if report["architecture"] != "12b-v2" or "capability" not in report["machine"]:
        return []
    kernels = _rows(report, "kernels")
    attention = _rows(report, "attention")
    step = report.get("step", {})
    return [*_kernel_targets(kernels), *_attention_targets(attention), *_step_targets(step)]


def _rows(report: dict[str, Any], section: str) -> list[dict[str, Any]]:
    found = report.get(section, [])
    return found if isinstance(found, list) else []


def _kernel_targets(rows: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    forward = [row for row in rows if row["pass"] == "forward" and "seconds" in row]
    for row in forward:
        if row["name"] == _OURS:
            yield _at_least(f"{row['kernel']}: share of the copy bandwidth", 0.85, row["of_copy"])
    for row in forward:
        if row["name"].startswith("comfy_kitchen"):
            wanted = 1.5 if row["kernel"].startswith("gated_residual_adaln") else 1.0
            yield _at_least(f"{row['kernel']}: time of {row['name']} over ours", wanted, row["times_ours"])


def _attention_targets(rows: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for row in rows:
        if row["backend"] == "triton" and row["pass"] == "forward" and row.get("speed_over_best_sdpa") is not None:
            yield _at_least("attention: speed over PyTorch's best back end", 0.9, row["speed_over_best_sdpa"])


def _step_targets(step: dict[str, Any]) -> Iterable[dict[str, Any]]:
    rows = {row["name"]: row for row in step.get("formulations", []) if "seconds" in row}
    if "op_by_op" in rows and "times_ours" in rows["op_by_op"]:
        yield _at_least("step: time op by op over ours", 1.5, rows["op_by_op"]["times_ours"])
    if _OURS in rows:
        yield _at_most("step: our time over the floor", 1.25, rows[_OURS]["times_floor"])
        if "peak_bytes" in rows[_OURS]:
            yield _at_most("step: peak memory, GB", 27, rows[_OURS]["peak_bytes"] / 1e9)


def _at_least(target: str, wanted: float, measured: float) -> dict[str, Any]:
    return {"target": target, "wanted": f"at least {wanted}", "measured": measured, "met": measured >= wanted}


def _at_most(target: str, wanted: float, measured: float) -> dict[str, Any]:
    return {"target": target, "wanted": f"at most {wanted}", "measured": measured, "met": measured <= wanted}
