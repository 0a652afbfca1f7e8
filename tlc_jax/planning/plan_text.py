"""The plan as people read it: a listing for one size, a table for several."""

from __future__ import annotations

from typing import Any

from tlc_jax.core.text import byte_size, number, table

UNKNOWN = "unknown"


def describe(result: dict[str, Any]) -> str:
    """All of the plan but what only a program wants."""
    plans = result["plans"]
    lines = [_devices(result), *(_one(plans[0], result) if len(plans) == 1 else _table(plans))]
    return "\n".join(lines)


def _devices(result: dict[str, Any]) -> str:
    mesh = ",".join(f"{axis}={size}" for axis, size in result["mesh"].items()) or "one device"
    memory = (
        f"{byte_size(result['memory'])} each ({result['memory_source']})"
        if result["memory"]
        else result["memory_source"]
    )
    here = "" if result["at_hand"] else ", not at hand"
    return f"{'devices':<18}{result['devices']} x {result['device']}{here}; mesh {mesh}; {memory}"


def _one(plan: dict[str, Any], result: dict[str, Any]) -> list[str]:
    rows = [
        (
            "size",
            f"{_size(plan)} ({plan['kind']}), {plan['params']:,} parameters, vocabulary {plan['vocab_size']:,}",
        ),
        ("microbatch", _microbatch(plan)),
        ("memory", _memory(plan)),
        ("FLOPs", f"{plan['flops_per_step']:.3g} a step of {plan['tokens_per_step']:,} tokens"),
        ("step", _step(plan)),
        ("tokens/s", number(plan["tokens_per_second"], missing=UNKNOWN)),
        ("MFU", f"{plan['mfu']:.1%}" if plan["mfu"] else _no_mfu(plan)),
        ("budget", _budget(plan, result)),
        (
            "flags",
            f"--config.impl.microbatch={plan['microbatch']}"
            if plan["fits"]
            else "none helps; see above",
        ),
    ]
    return [f"{name:<18}{text}" for name, text in rows]


def _microbatch(plan: dict[str, Any]) -> str:
    whole = f"{plan['batch_size']:,} {plan['unit']}"
    too_large = [
        (int(size), found) for size, found in plan["compiled"].items() if not found["fits"]
    ]
    beyond = ""
    if too_large:
        size, found = min(too_large, key=lambda pair: pair[0])
        need = f"needs {byte_size(found['need'])}" if found["need"] else "is refused"
        beyond = f"; {size:,} {need}"
    if not plan["fits"]:
        return f"nothing fits{beyond}: try impl.remat=True, impl.mesh=fsdp=-1 or more devices"
    return f"{plan['microbatch']:,} of {whole}, the largest that fits{beyond}"


def _memory(plan: dict[str, Any]) -> str:
    if not plan["fits"]:
        return "does not fit"
    found = plan["compiled"][str(plan["microbatch"])]
    parts = f"{byte_size(found['arguments'])} state and batch + {byte_size(found['temporaries'])} temporaries"
    inside = found["arguments"] + found["temporaries"] + found["outputs"]
    copy = (
        f" + {byte_size(found['need'] - inside)} for the benchmark clock's copy"
        if found["need"] > inside
        else ""
    )
    return f"{parts}{copy}, on each device"


def _no_mfu(plan: dict[str, Any]) -> str:
    return UNKNOWN if plan["step"]["seconds"] is None else f"{UNKNOWN} (no peak for this device)"


def _step(plan: dict[str, Any]) -> str:
    step = plan["step"]
    if step["seconds"] is None:
        return step["how"] if step["how"].startswith(UNKNOWN) else f"{UNKNOWN}: {step['how']}"
    parts = ", ".join(f"{name} {seconds:.3g}" for name, seconds in step["parts"].items())
    least = f"; at peak rate {step['least']:.3g} s" if step["least"] else ""
    return f"{step['seconds']:.3g} s ({step['how']}{': ' + parts if parts else ''}{least})"


def _budget(plan: dict[str, Any], result: dict[str, Any]) -> str:
    budget = plan["budget"]
    if not budget["limits"]:
        return "none is set"
    limits = ", ".join(f"{value:,.10g} {unit}" for unit, value in budget["limits"].items())
    if budget["steps"] is None:
        return f"{limits}: steps {UNKNOWN}"
    epochs = (
        f"{budget['epochs']:,.3g} epochs"
        if budget["epochs"]
        else f"epochs {UNKNOWN} (tlc prepare first)"
    )
    hours = f"{budget['chip_hours']:,.4g}" if budget["chip_hours"] else UNKNOWN
    chips = "chip" if result["platform"] == "tpu" else "device"
    return f"{limits}: {budget['steps']:,} steps, {epochs}, {hours} {chips}-hours"


_COLUMNS = (
    "size",
    "parameters",
    "microbatch",
    "state GiB",
    "temporary GiB",
    "FLOPs/step",
    "step s",
    "tokens/s",
    "MFU",
    "steps",
    "epochs",
    "chip-hours",
)


def _table(plans: list[dict[str, Any]]) -> list[str]:
    aligned = table([_COLUMNS, *(_row(plan) for plan in plans)]).splitlines()
    hows = sorted({plan["step"]["how"] for plan in plans})
    units = sorted({f"{plan['batch_size']:,} {plan['unit']}" for plan in plans})
    notes = [
        f"microbatch: of {' or '.join(units)}, the largest that fits; set it with --config.impl.microbatch=..."
    ]
    notes.append(f"step: {'; '.join(hows)}")
    if any(plan["budget"]["limits"] and plan["budget"]["epochs"] is None for plan in plans):
        notes.append("epochs: unknown before `tlc prepare`")
    return [*aligned, *notes]


def _row(plan: dict[str, Any]) -> list[str]:
    fits, budget = plan["fits"], plan["budget"]
    found = plan["compiled"][str(plan["microbatch"])] if fits else None
    return [
        _size(plan),
        f"{plan['params'] / 1e6:.1f} M",
        number(plan["microbatch"], ",", "none fits"),
        f"{found['arguments'] / 2**30:.2f}" if found else "-",
        f"{found['temporaries'] / 2**30:.2f}" if found else "-",
        f"{plan['flops_per_step']:.3g}",
        number(plan["step"]["seconds"], ".3g"),
        number(plan["tokens_per_second"]),
        number(plan["mfu"], ".1%"),
        number(budget["steps"]),
        number(budget["epochs"], ",.3g"),
        number(budget["chip_hours"], ",.4g"),
    ]


def _size(plan: dict[str, Any]) -> str:
    return f"{plan['layers']}x{plan['hidden']}"
