"""Mutants of PTX: instructions changed in ways that tests must notice. Of COUNT of them that are drawn from a file,
`ptx.py FILE COUNT KERNEL` puts those of a kernel into the library that it makes, beside the instructions that they replace;
HEADROOM_MUTANT=MODULE:KERNEL:NUMBER chooses one of them when a test runs. `ptx.py FILE COUNT list` says which there are.
Instead of a number, `barriers` are all barriers, left out.

They are drawn by the text of the file and a seed (COUNT@SEED), so that the same PTX always has the same ones.
"""

import hashlib
import random
import re

SWAPPED = {"add": "sub", "sub": "add", "min": "max", "max": "min", "and": "or", "or": "and", "shl": "shr", "shr": "shl"}
OFF_BY_ONE = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt"}
NEGATED = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}


def of(guard, opcode, operands):
    """All mutants of an instruction, as (what, guard, opcode, operands); without an opcode it is left out."""
    parts = opcode.split(".")
    name, type = parts[0], parts[-1]

    def renamed(index, to):
        return ".".join(parts[:index] + [to] + parts[index + 1 :])

    if name == "bar":
        yield "left out", guard, "", operands
    if guard and name == "bra":
        other = guard.replace("@!", "@") if "!" in guard else guard.replace("@", "@!")
        yield "the other way", other, opcode, operands
    if name in SWAPPED and type != "pred":
        new = renamed(0, SWAPPED[name])
        # Shifts to the left have types without a sign.
        yield "another operation", guard, new.replace(".rz", ".rn"), operands
    if name == "mul" and type == "f32":
        yield "a sum", guard, renamed(0, "add"), operands
    if name == "setp" and type[0] in "us":
        for table, what in ((OFF_BY_ONE, "off by one"), (NEGATED, "the opposite")):
            if parts[1] in table:
                yield what, guard, renamed(1, table[parts[1]]), operands
    if name == "selp" and operands[1] != operands[2]:
        yield "swapped", guard, opcode, [operands[0], operands[2], operands[1], operands[3]]
    if name == "fma" and operands[1] != operands[2]:
        yield "another factor", guard, opcode, [operands[0], operands[1], operands[1], operands[3]]
    if name == "dp4a" and operands[1] != operands[2]:
        yield "another factor", guard, opcode, [operands[0], operands[1], operands[1], operands[3]]
    if name == "mma":
        items = operands[1].strip("{}").split(",")
        if len(items) > 1:
            yield "rows swapped", guard, opcode, [operands[0], "{" + ",".join(items[1::-1] + items[2:]) + "}", *operands[2:]]
        else:
            yield "factors swapped", guard, opcode, [operands[0], operands[2], operands[1], operands[3]]
    for i, operand in enumerate(operands):
        if name in ("ld", "st") and operand.startswith("["):
            base, _, offset = operand.strip("[]").partition("+")
            size = int(re.sub(r"\D", "", type)) // 8
            yield "the next", guard, opcode, operands[:i] + [f"[{base}+{int(offset or 0) + size}]"] + operands[i + 1 :]
        elif i > 0 and re.fullmatch(r"-?\d+", operand) and name not in ("bar", "vote", "mov"):
            yield "a constant", guard, opcode, operands[:i] + [str(int(operand) + 1)] + operands[i + 1 :]
        # Smaller ones correct the last bits of others.
        elif i > 0 and re.fullmatch(r"0f[0-9A-F]{8}", operand) and int(operand[2:], 16) & 0x7FFFFFFF > 0x35800000:
            changed = f"0f{int(operand[2:], 16) ^ 0x00400000:08X}"
            yield "a constant", guard, opcode, operands[:i] + [changed] + operands[i + 1 :]


def draw(kernels, text, count):
    """`count` mutants of kernels, a dictionary of lists of instructions: {(kernel, index): (number, mutant)}."""
    if count == "barriers":
        bars = [(name, i, line) for name, lines in kernels.items() for i, line in enumerate(lines) if line[1:2] and line[1].startswith("bar.")]
        return {(name, i): (number, next(of(*line))) for number, (name, i, line) in enumerate(bars)}
    count, _, seed = count.partition("@")
    count = int(count)
    chance = random.Random(seed + hashlib.sha256(text.encode()).hexdigest())
    places = {name: [i for i, line in enumerate(lines) if len(line) == 3 and any(of(*line))] for name, lines in kernels.items()}
    chosen, names = {}, [name for name in kernels if places[name]]
    chance.shuffle(names)
    number = 0
    # Kernels in turn: large ones are not more important.
    while number < count and any(places.values()):
        name = names[number % len(names)]
        if places[name]:
            index = places[name].pop(chance.randrange(len(places[name])))
            chosen[name, index] = (number, chance.choice(list(of(*kernels[name][index]))))
        number += 1
    return chosen


def shown(guard, opcode, operands):
    if not opcode:
        return "-"
    return " ".join(part for part in (guard, opcode, ", ".join(operands)) if part)
