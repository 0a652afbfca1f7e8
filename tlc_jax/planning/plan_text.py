"""The plan as people read it: a listing for one size, a table for several."""

from __future__ import annotations

from typing import Any

from tlc_jax.core.text import byte_size, number, table

UNKNOWN = "unknown"


def describe(result: dict[str, Any]) -> str:
    """The plan without what only a program wants."""
    plans = result["plans"]
    rows, notes = [("devices", _devices(result))], []
    if len(plans) == 1:
        rows += _one(plans[0], result)
    else:
        notes = [table([list(_row(plans[0])), *(list(_row(plan).values()) for plan in plans)])]
        notes += _notes(plans)
    return "\n".join([*(f"{name:<18}{text}" for name, text in rows), *notes])


def _devices(result: dict[str, Any]) -> str:
    mesh = ",".join(f"{axis}={size}" for axis, size in result["mesh"].items()) or "one device"
    memory, source = result["memory"], result["memory_source"]
    memory = f"{byte_size(memory)} each ({source})" if memory else source
    here = "" if result["at_hand"] else ", not at hand"
    return f"{result['devices']} x {result['device']}{here}; mesh {mesh}; {memory}"


def _one(plan: dict[str, Any], result: dict[str, Any]) -> list[tuple[str, str]]:
    size = f"{_size(plan)} ({plan['kind']}), {plan['params']:,} parameters"
    no_mfu = "" if plan["step"]["seconds"] is None else " (no peak for this device)"
    flag = f"--config.impl.microbatch={plan['microbatch']}"
    return [
        ("size", f"{size}, vocabulary {plan['vocab_size']:,}"),
        ("settings", ", ".join(f"{name}={value}" for name, value in plan["impl"].items())),
        ("microbatch", _microbatch(plan)),
        ("memory", _memory(plan)),
        ("FLOPs", f"{plan['flops_per_step']:.3g} a step of {plan['tokens_per_step']:,} tokens"),
        ("step", _step(plan["step"])),
        ("tokens/s", number(plan["tokens_per_second"], missing=UNKNOWN)),
        ("MFU", number(plan["mfu"], ".1%", UNKNOWN + no_mfu)),
        ("budget", _budget(plan["budget"], result["platform"])),
        ("flags", flag if plan["fits"] else "none helps; see above"),
    ]


def _microbatch(plan: dict[str, Any]) -> str:
    too_large = [int(size) for size, found in plan["compiled"].items() if not found["fits"]]
    beyond = ""
    if too_large:
        size = min(too_large)
        need = plan["compiled"][str(size)]["need"]
        beyond = f"; {size:,} {f'needs {byte_size(need)}' if need else 'is refused'}"
    if not plan["fits"]:
        remat = "" if plan["impl"]["remat"] else "impl.remat=True, "
        return f"nothing fits{beyond}: try {remat}impl.mesh=fsdp=-1 or more devices"
    whole = f"{plan['batch_size']:,} {plan['unit']}"
    return f"{plan['microbatch']:,} of {whole}, the largest that fits{beyond}"


def _memory(plan: dict[str, Any]) -> str:
    if not plan["fits"]:
        return "does not fit"
    found = plan["compiled"][str(plan["microbatch"])]
    state, temporaries = byte_size(found["arguments"]), byte_size(found["temporaries"])
    beyond = found["need"] - found["arguments"] - found["temporaries"] - found["outputs"]
    copy = f" + {byte_size(beyond)} for the benchmark clock's copy" if beyond > 0 else ""
    return f"{state} state and batch + {temporaries} temporaries{copy}, on each device"


def _step(step: dict[str, Any]) -> str:
    if step["seconds"] is None:
        return step["how"] if step["how"].startswith(UNKNOWN) else f"{UNKNOWN}: {step['how']}"
    parts = ", ".join(f"{name} {seconds:.3g}" for name, seconds in step["parts"].items())
    least = f"; at peak rate {step['least']:.3g} s" if step["least"] else ""
    return f"{step['seconds']:.3g} s ({step['how']}{': ' + parts if parts else ''}{least})"


def _budget(budget: dict[str, Any], platform: str) -> str:
    if not budget["limits"]:
        return "none is set"
    limits = ", ".join(f"{value:,.10g} {unit}" for unit, value in budget["limits"].items())
    if budget["steps"] is None:
        return f"{limits}: steps {UNKNOWN}"
    epochs = f"epochs {UNKNOWN} (tlc prepare first)"
    if budget["epochs"]:
        epochs = f"{budget['epochs']:,.3g} epochs"
    hours = number(budget["chip_hours"], ",.4g", UNKNOWN)
    chips = "chip" if platform == "tpu" else "device"
    return f"{limits}: {budget['steps']:,} steps, {epochs}, {hours} {chips}-hours"


def _row(plan: dict[str, Any]) -> dict[str, str]:
    """The cells of a table's row, by the names of their columns."""
    budget, found = plan["budget"], plan["compiled"].get(str(plan["microbatch"]))
    return {
        "size": _size(plan),
        "parameters": f"{plan['params'] / 1e6:.1f} M",
        "microbatch": number(plan["microbatch"], ",", "none fits"),
        "state GiB": f"{found['arguments'] / 2**30:.2f}" if found else "-",
        "temporary GiB": f"{found['temporaries'] / 2**30:.2f}" if found else "-",
        "FLOPs/step": f"{plan['flops_per_step']:.3g}",
        "step s": number(plan["step"]["seconds"], ".3g"),
        "tokens/s": number(plan["tokens_per_second"]),
        "MFU": number(plan["mfu"], ".1%"),
        "steps": number(budget["steps"]),
        "epochs": number(budget["epochs"], ",.3g"),
        "chip-hours": number(budget["chip_hours"], ",.4g"),
    }


def _notes(plans: list[dict[str, Any]]) -> list[str]:
    units = sorted({f"{plan['batch_size']:,} {plan['unit']}" for plan in plans})
    hows = sorted({plan["step"]["how"] for plan in plans})
    notes = [
        f"microbatch: of {' or '.join(units)}, the largest that fits; "
        "set it with --config.impl.microbatch=...",
        f"step: {'; '.join(hows)}",
        *_shares([plan["step"]["parts"] for plan in plans if plan["step"]["parts"]]),
    ]
    if any(plan["budget"]["limits"] and plan["budget"]["epochs"] is None for plan in plans):
        notes.append("epochs: unknown before `tlc prepare`")
    return notes


def _shares(steps: list[dict[str, float]]) -> list[str]:
    """A line with the smallest and the largest share of each part of the steps' estimates."""
    if not steps:
        return []
    shares = []
    for name in steps[0]:
        values = [parts[name] / sum(parts.values()) for parts in steps]
        shares.append(f"{name} {min(values):.0%} to {max(values):.0%}")
    return [f"of a step: {', '.join(shares)}"]


def _size(plan: dict[str, Any]) -> str:
    return f"{plan['layers']}x{plan['hidden']}"
