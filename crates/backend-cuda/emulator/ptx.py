"""Translates PTX to C++ over the emulator: ptx.py FILE.ptx > FILE.cpp. What it does not know is an error.

So the very text that the driver compiles is run, not only the source that it was compiled from. With more arguments it is
one kernel, with mutants in it (mutants.py).
"""

import re
import sys

sys.dont_write_bytecode = True
import mutants  # noqa: E402

C_TYPES = {
    "pred": "bool", "b8": "uint8_t", "u8": "uint8_t", "s8": "int8_t", "b16": "uint16_t", "u16": "uint16_t",
    "s16": "int16_t", "f16": "Half", "b32": "uint32_t", "u32": "uint32_t", "s32": "int32_t", "f32": "float",
    "b64": "uint64_t", "u64": "uint64_t", "s64": "int64_t", "f64": "double",
}  # fmt: skip
SPECIAL = {f"%{kind}.{axis}": f"{value}.{axis}" for kind, value in [
    ("tid", "threadIdx"), ("ntid", "blockDim"), ("ctaid", "blockIdx"), ("nctaid", "gridDim")
] for axis in "xyz"}  # fmt: skip
BINARY = {"add": "+", "sub": "-", "and": "&", "or": "|", "xor": "^"}
# Of floats: comparisons that are true with NaN end with u.
COMPARE = {"eq": "{0} == {1}", "ne": "{0} != {1}", "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}",
           "ge": "{0} >= {1}", "ltu": "!({0} >= {1})", "leu": "!({0} > {1})", "gtu": "!({0} <= {1})",
           "geu": "!({0} < {1})", "neu": "!({0} == {1})", "nan": "({0} != {0} || {1} != {1})",
           "num": "({0} == {0} && {1} == {1})"}  # fmt: skip
UNARY = {"neg": "-{0}", "not": "~{0}", "abs": "std::fabs({0})", "ex2": "exp2f({0})", "sqrt": "std::sqrt({0})",
         "rcp": "1 / {0}"}  # fmt: skip
# What may stand between an instruction's name and its types, where more would change what it does.
MODES = {"fma": {"rn", "rm"}, "mul": {"rn", "lo", "wide"}, "mad": {"lo"}, "div": {"rn"}, "rem": set(), "min": set(), "max": set(),
         "setp": set(COMPARE), "cvt": {"rn", "rni", "rzi", "sat"}, "ex2": {"approx", "ftz"}, "rcp": {"rn", "approx", "ftz"},
         "sqrt": {"rn"}, "neg": set(), "abs": set()}  # fmt: skip


# Of mma.sync: shape, type of the result, type of both sides.
PRODUCTS = {
    ("m16n8k32", "s32", "s8"): "{arrays} mma32(c, a, b);",
    ("m16n8k16", "s32", "s8"): "mma16(c, {0}, {1}, {2});",
    ("m8n8k16", "s32", "s8"): "mma8(c[0], c[1], {0}, {1});",
    ("m16n8k16", "f32", "f16"): "{arrays} mma_f16(c, a, b);",
    ("m16n8k16", "f32", "bf16"): "{arrays} mma_bf16(c, a, b);",
    ("m16n8k8", "f32", "f16"): "mma_f16_of_8(c, {0}, {1}, {2});",
}


def register(name):
    return "r_" + name[1:]


def value(operand, type):
    """An operand as a C++ value of a PTX type."""
    c = C_TYPES[type]
    if operand in SPECIAL:
        return f"{c}({SPECIAL[operand]})"
    if operand.startswith("%"):
        return f"as<{c}>({register(operand)})"
    if operand[:2] in ("0f", "0F"):
        return f"as<{c}>(uint32_t(0x{operand[2:]}u))"
    if operand[:2] in ("0d", "0D"):
        return f"as<{c}>(uint64_t(0x{operand[2:]}ull))"
    if re.match(r"^-?\d", operand):
        return f"{c}({operand}{'u' if operand.startswith('0x') else ''}ll)"
    return f"{c}(SHARED_{operand})"


def put(to, expression, type):
    return f"{register(to)} = widen<decltype({register(to)})>({C_TYPES[type]}({expression}));"


def split(text):
    return [part.strip() for part in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{\[])+", text)]


def address(operand):
    base, _, offset = operand.strip("[] ").replace("+ ", "+").partition("+")
    width = "u32" if re.match(r"^%r\d", base) else "u64"
    return f"{value(base, width)} + {offset or 0}"


def memory(parts, operands):
    load = parts[0] == "ld"
    type, space = parts[-1], parts[1]
    vector, place = (operands[0], operands[1]) if load else (operands[1], operands[0])
    code, c, items = [], C_TYPES[type], split(vector.strip("{}"))
    if len(items) > 1 and space != "param":
        code.append(f"aligned({address(place)}, {len(items)} * sizeof({c}));")
    for i, item in enumerate(items):
        step = f" + {i} * sizeof({c})"
        if space == "param":
            code.append(put(item, f"parameter<{c}>(parameters, {address(place)}{step}, PARAMETERS)", type))
            continue
        at = f"{'shared_at' if space == 'shared' else 'global_at'}<{c}>({address(place)}{step})"
        code.append(put(item, f"*{at}", type) if load else f"*{at} = {value(item, type)};")
    return " ".join(code)


def convert(parts, operands):
    to, source, modes = parts[-2], parts[-1], parts[1:-2]
    x = value(operands[1], source)
    integral = to[0] in "us" and source[0] == "f"
    if integral and modes == ["rzi"]:
        x = f"truncate<{C_TYPES[to]}>({x})"
    elif "rni" in modes:
        x = f"std::nearbyint({x})"
    elif "rzi" in modes:
        x = f"std::trunc({x})"
    elif "sat" in modes:
        x = f"saturate({x})"
    elif integral:
        sys.exit("cvt " + str(parts))
    return put(operands[0], x, to)


def multiply(parts, operands):
    type = parts[-1]
    wide = parts[1] == "wide"
    if wide:
        type_out = type[0] + str(2 * int(type[1:]))
        product = f"{C_TYPES[type_out]}({value(operands[1], type)}) * {C_TYPES[type_out]}({value(operands[2], type)})"
    elif type[0] == "f":
        type_out, product = type, f"{value(operands[1], type)} * {value(operands[2], type)}"
    elif parts[1] == "lo":
        type_out = "u" + type[1:]
        product = f"{value(operands[1], type_out)} * {value(operands[2], type_out)}"
    else:
        sys.exit("mul " + str(parts))
    if parts[0] == "mad":
        product += f" + {value(operands[3], type_out)}"
    return put(operands[0], product, type_out)


def move(operands, type):
    to, source = operands
    if source.startswith("{"):
        items = split(source.strip("{}"))
        bits = int(type[1:]) // len(items)
        packed = " | ".join(f"uint{type[1:]}_t({value(item, f'u{bits}')}) << {i * bits}" for i, item in enumerate(items))
        return put(to, packed, "u" + type[1:])
    if to.startswith("{"):
        items = split(to.strip("{}"))
        bits = int(type[1:]) // len(items)
        whole = value(source, "u" + type[1:])
        return " ".join(put(item, f"{whole} >> {i * bits}", f"u{bits}") for i, item in enumerate(items))
    return put(to, value(source, type), type)


def instruction(opcode, operands):
    parts = opcode.split(".")
    name, type = parts[0], parts[-1]
    v = [value(o, type) if type in C_TYPES and not re.match(r"[\[{]|.*\|", o) and not o.startswith("$") else o
         for o in operands]  # fmt: skip
    if name in MODES and not set(parts[1 : -2 if name == "cvt" else -1]) <= MODES[name]:
        sys.exit("unknown mode: " + opcode)
    if name == "mma":
        return tensor_product(opcode, operands)
    if name == "bra":
        return f"if (ENDLESS) does_not_end(); goto {label(operands[0])};"
    if name == "ret":
        return "return;"
    if name == "bar":
        return f"__syncwarp({value(operands[0], 'u32')});" if "warp" in parts else "__syncthreads();"
    if name in ("ld", "st"):
        return memory(parts, operands)
    if name == "mov":
        return move(operands, type)
    if name == "cvta":
        return put(operands[0], v[1], type)
    if name == "cvt":
        return convert(parts, operands)
    if name == "shfl":
        to = operands[0].partition("|")[0]
        a, b, c, mask = (value(o, "u32") for o in operands[1:5])
        return put(to, f"shuffle_{parts[2]}({mask}, {a}, {b}, {c})", "b32")
    if opcode == "vote.sync.ballot.b32":
        return put(operands[0], f"__ballot_sync({value(operands[2], 'u32')}, {register(operands[1])})", "b32")
    if name == "popc":
        return put(operands[0], f"__popc({v[1]})", type)
    if name in ("mul", "mad"):
        return multiply(parts, operands)
    if name == "setp":
        return f"{register(operands[0])} = {COMPARE[parts[1]].format(v[1], v[2])};"
    if name == "selp":
        return put(operands[0], f"{register(operands[3])} ? {v[1]} : {v[2]}", type)
    if name == "fma":
        return put(operands[0], f"{'fma_down' if 'rm' in parts else 'std::fma'}({v[1]}, {v[2]}, {v[3]})", type)
    if name in ("shl", "shr"):
        return put(operands[0], f"{name}({v[1]}, {value(operands[2], 'u32')})", type)
    if name in BINARY:
        kind = "u" + type[1:] if type[0] == "s" else type
        a, b = value(operands[1], kind), value(operands[2], kind)
        if opcode == "add.rz.f32":
            return put(operands[0], f"add_to_zero({a}, {b})", kind)
        if not set(parts[1:-1]) <= {"rn"}:
            sys.exit("unknown mode: " + opcode)
        return put(operands[0], f"{a} {BINARY[name]} {b}", kind)
    if name in ("div", "rem"):
        return put(operands[0], f"{v[1]} {'/' if name == 'div' else '%'} {v[2]}", type)
    if name in ("min", "max"):
        return put(operands[0], f"{name}imum({v[1]}, {v[2]})", type)
    if name == "not" and type == "pred":
        return f"{register(operands[0])} = !{register(operands[1])};"
    if name in UNARY:
        return put(operands[0], UNARY[name].format(v[1]), type)
    if name == "bfe":
        return put(operands[0], f"bit_field({v[1]}, {value(operands[2], 'u32')}, {value(operands[3], 'u32')})", type)
    if name == "bfi":
        position, length = value(operands[3], "u32"), value(operands[4], "u32")
        return put(operands[0], f"bit_insert({v[1]}, {v[2]}, {position}, {length})", type)
    if name == "prmt":
        return put(operands[0], f"permute({', '.join(value(o, 'u32') for o in operands[1:4])})", "b32")
    if name == "dp4a" and type == "s32":
        return put(operands[0], f"dp4a({v[1]}, {v[2]}, {v[3]})", "s32")
    sys.exit(f"unknown instruction: {opcode} {operands}")


def tensor_product(opcode, operands):
    """mma.sync: d = a b + c, of signed bytes or of halves."""
    d, a, b, c = (split(o.strip("{}")) for o in operands)
    shape = re.fullmatch(r"mma\.sync\.aligned\.(\w+)\.row\.col\.(\w+)\.(\w+)\.(\w+)\.(\w+)", opcode)
    shape, to, left, right, start = shape.groups() if shape else (None,) * 5
    call = PRODUCTS.get((shape, to, left))
    if not call or to != start or left != right:
        sys.exit("unknown product: " + opcode)
    type = "s32" if to == "s32" else "b32"
    a, b = ([value(o, type) for o in items] for items in (a, b))
    # Each register of a and b by itself, or all of them as arrays.
    call = call.format(*a, *b, arrays=f"const {C_TYPES[type]} a[4] = {{{', '.join(a)}}}, b[2] = {{{', '.join(b)}}};")
    c = ", ".join(value(o, to) for o in c)
    return f"{C_TYPES[to]} c[4] = {{{c}}}; {call} " + " ".join(put(o, f"c[{i}]", to) for i, o in enumerate(d))


def label(name):
    return "L_" + name.replace("$", "").strip()


def instructions(body):
    """The lines of a kernel: labels as strings, and (guard, opcode, operands)."""
    body = re.sub(r"(?m)^\s*\.(reg|shared|pragma)[^;]*;", "", body)
    for line in re.sub(r"(\$\w+):", r"\1:;", body).split(";"):
        line = " ".join(line.split())
        if line.endswith(":"):
            yield line[:-1]
        elif line:
            guard, rest = re.match(r"^(@!?%p\d+ )?(.*)$", line).groups()
            opcode, _, operands = rest.partition(" ")
            yield (guard or "").strip(), opcode, split(operands)


def statement(guard, opcode, operands):
    condition = f"if ({'!' if '!' in guard else ''}{register(guard.lstrip('@!'))}) " if guard else ""
    return f"{condition}{{ {instruction(opcode, operands) if opcode else ''} }}"


def kernel(name, parameters, body, lines, chosen):
    size = re.search(r"\[(\d+)\]", parameters).group(1)
    print(f"static void ptx_{name}(const void *parameters) {{ (void)parameters;")
    print(f"  const size_t PARAMETERS = {size}; (void)PARAMETERS;")
    # Of parameters the one struct is at 0. So is dynamic shared memory, and static at STATIC.
    print(f"  const uint64_t SHARED_{name}_param_0 = 0; (void)SHARED_{name}_param_0;")
    offset = 0
    for align, symbol, length in re.findall(r"\.shared \.align (\d+) \.b8 (\w+)\[(\d+)\];", body):
        offset = -(-offset // int(align)) * int(align)
        print(f"  const uint64_t SHARED_{symbol} = STATIC + {offset}; (void)SHARED_{symbol};")
        offset += int(length)
    print("  const uint64_t SHARED_dynamic_shared = 0; (void)SHARED_dynamic_shared; uint32_t jumps = 0; (void)jumps;")
    for type, prefix, count in re.findall(r"\.reg \.(\w+)\s+(%\w+)<(\d+)>;", body):
        names = ", ".join(f"{register(prefix)}{i} = 0" for i in range(1, int(count)))
        if names:
            print(f"  {C_TYPES[type]} {names};")
    for index, line in enumerate(lines):
        if isinstance(line, str):
            print(f"  {label(line)}:;")
        elif (name, index) in chosen:
            number, (_, *mutant) = chosen[name, index]
            # In braces: either may be an if of its own.
            print(f"  if (mutant == {number}) {{ {statement(*mutant)} }} else {{ {statement(*line)} }}")
        else:
            print(f"  {statement(*line)}")
    print(f'}}\nstatic Kernel entry_{name}("{name}", {size}, 1024, ptx_{name});')


path, *mutated = sys.argv[1:]
source = re.sub(r"//[^\n]*", "", open(path).read())
if re.search(r"\.(local|const|func)\b", source):
    sys.exit("local and constant memory and functions are not translated")
entries = re.findall(r"\.entry (\w+)\((.*?)\)[^{]*\{(.*?)\n\}", source, re.S)
# Mutants are drawn from all kernels; without any, one is read alone.
alone = mutated[1:] if mutated[:1] == ["0"] else [name for name, _, _ in entries]
lines = {name: list(instructions(body)) for name, _, body in entries if name in alone}
chosen = mutants.draw(lines, source, mutated[0]) if mutated else {}
if mutated[1:] == ["list"]:
    for (name, index), (number, (what, *mutant)) in sorted(chosen.items(), key=lambda item: item[1][0]):
        print(number, name, index, what, mutants.shown(*lines[name][index]), mutants.shown(*mutant), sep="\t")
    sys.exit()
print('#include "cuda.h"\n#include "ptx.h"')
# Only mutants may go on forever.
print(f"#define ENDLESS {'++jumps > 10000000' if chosen else 'false'}")
if chosen:
    print("static const int mutant = chosen_mutant();")
wanted = mutated[1:] or lines
for name, parameters, body in entries:
    if name in wanted:
        kernel(name, parameters, body, lines[name], chosen)
