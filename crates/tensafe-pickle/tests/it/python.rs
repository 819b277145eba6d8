//! Against Python: its table of opcodes, and what it pickles.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use tensafe_pickle::{Opcode, evaluate};

use crate::shown;

pub(crate) fn python(program: &str) -> String {
    let mut child =
        Command::new("python3").arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success());
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn the_table_of_opcodes_is_pythons() {
    let theirs =
        python("import pickletools\nfor o in pickletools.opcodes: print(ord(o.code), o.name, o.proto)\n");
    let mut theirs: Vec<&str> = theirs.lines().collect();
    let mut ours: Vec<String> =
        Opcode::ALL.iter().map(|o| format!("{} {} {}", *o as u8, o.name(), o.protocol())).collect();
    theirs.sort_unstable();
    ours.sort();
    assert_eq!(ours, theirs);
    assert!((0..=255).all(|b| Opcode::from_byte(b).is_none_or(|o| o as u8 == b)));
}

/// Values of every kind, in every protocol, optimised by `pickletools` and not: each line is the
/// pickle and what it holds.
const VALUES: &str = r#"
import collections, pickle, pickletools, struct
def show(v):
    if v is None or v is True or v is False: return str(v)
    if isinstance(v, int):
        if -2**63 <= v < 2**63: return str(v)
        data = v.to_bytes((v.bit_length() >> 3) + 1, "little", signed=True)
        # One spelling for each number: pickles may hold a byte more than it takes.
        while len(data) > 1 and data[-1] == (255 if data[-2] > 127 else 0): data = data[:-1]
        return "long:" + data.hex()
    if isinstance(v, float): return "float:" + struct.pack(">d", v).hex()
    if isinstance(v, str): return "str:" + v.encode("utf-8", "replace").hex()
    if isinstance(v, bytearray): return "bytearray:" + v.hex()
    if isinstance(v, bytes): return "bytes:" + v.hex()
    each = lambda items: "".join(show(i) + " " for i in items)
    if isinstance(v, dict): return "dict(" + each(i for pair in v.items() for i in pair) + ")"
    return type(v).__name__ + "(" + each(v) + ")"
shared = [1, 2]
values = [None, True, False, 0, 1, -1, 255, 256, 65535, 65536, -2**31, 2**31, 2**63 - 1, -2**63, 1.5, -0.0, 1e300,
    float("inf"), "", "text", "é\n\\u0041 日本 \U0001f600", "x" * 300, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1, [2, [3]]],
    {}, {"a": 1, 2: "b", (3,): None}, [shared, shared], list(range(3000)), {str(i): i for i in range(3000)},
    [(i, {"k": [i] * 3}) for i in range(50)]]
long = [2**63, -2**63 - 1, 2**64, -2**64, 2**71 - 1, -2**71, 2**200, -2**200, 255 * 2**64, -255 * 2**64]
newer = [b"", b"bytes", b"x" * 300, b"x" * 70000]
for protocol in range(6):
    chosen = values + long + (newer if protocol >= 3 else [])
    if protocol >= 4: chosen = chosen + [{5}, frozenset([7]), "x" * 70000, [b"y" * 100000, "z" * 100000]]
    if protocol >= 5: chosen = chosen + [bytearray(b"array")]
    for value in chosen:
        data = pickle.dumps(value, protocol)
        print(data.hex(), show(value))
        print(pickletools.optimize(data).hex(), show(value))
"#;

#[test]
fn what_python_pickles_is_read_back_in_every_protocol() {
    let mut compared = 0;
    for line in python(VALUES).lines() {
        let (pickle, expected) = line.split_once(' ').unwrap();
        assert_eq!(shown(&unhex(pickle)), expected, "{pickle}");
        compared += 1;
    }
    assert!(compared > 400, "{compared}");
}

/// Numbers and texts as lines, all short ones that are made of these pieces: what both readers of
/// Python read in them, or `error` where one refuses or they differ.
const LINES: &str = r#"
import io, itertools, pickle, struct
def show(v):
    if isinstance(v, bool): return str(v)
    if isinstance(v, int) and -2**63 <= v < 2**63: return str(v)
    if isinstance(v, int):
        bits = v.bit_length() if v >= 0 else (-v - 1).bit_length()
        return "long:" + v.to_bytes((bits >> 3) + 1, "little", signed=True).hex()
    if isinstance(v, float): return "float:" + struct.pack(">d", v).hex()
    return "str:" + "".join("\ufffd" if 0xd800 <= ord(c) < 0xe000 else c for c in v).encode().hex()
def read(reader, data):
    try: return show(reader(io.BytesIO(data)).load())
    except Exception: return "error"
def lines(code, pieces, most):
    for count in range(1, most + 1):
        for line in itertools.product(pieces, repeat=count):
            data = code + b"".join(line) + b"\n."
            of_c, of_python = (read(reader, data) for reader in (pickle.Unpickler, pickle._Unpickler))
            print(data.hex(), of_c if of_c == of_python else "error")
integers = [b"0", b"1", b"8", b"a", b"x", b"O", b"b", b"_", b"+", b"-", b" ", b"\x0b", b"\r", b"\0", b"\xa0", b"L"]
lines(b"I", integers, 3)
lines(b"L", integers, 3)
lines(b"I", [b"0x", b"0_", b"17", b"_", b"-", b" "], 4)
lines(b"L", [b"0x", b"0_", b"17", b"_", b"-", b"L"], 4)
lines(b"I", [b"-", b"0x", b"9223372036854775807", b"7fffffffffffffff", b"0o1777777777777777777777"], 2)
lines(b"F", [b"0", b"1", b".", b"e", b"+", b"-", b"_", b" ", b"\r", b"inf", b"NaN", b"400", b"\0"], 4)
lines(b"V", [b"\\", b"\\u", b"\\U", b"u", b"0041", b"+041", b"00000041", b"00110000", b"d800", b"\xe9"], 3)
"#;

#[test]
fn numbers_and_texts_as_lines_are_what_both_readers_of_python_read() {
    let mut compared = 0;
    for line in python(LINES).lines() {
        let (pickle, expected) = line.split_once(' ').unwrap();
        let found = shown(&unhex(pickle));
        let found = if found.starts_with("error") { "error" } else { &found };
        // One spelling for all that are no number.
        let is_nan = |text: &str| text == "float:7ff8000000000000" || text == "float:fff8000000000000";
        assert!(found == expected || (is_nan(found) && is_nan(expected)), "{line}: {found}");
        compared += 1;
    }
    assert!(compared > 30_000, "{compared}");
}

#[test]
fn a_pickle_that_is_cut_anywhere_is_an_error_and_never_a_panic() {
    let program = "import pickle, collections\nv = [collections.OrderedDict(a=1), {'k': (1.5, b'x', 2**70)}, {3}]\n\
                   for p in range(6): print(pickle.dumps(v, p).hex())\n";
    for line in python(program).lines() {
        let pickle = unhex(line);
        let whole = evaluate(&pickle, &Default::default());
        assert!(whole.error().is_none() && whole.bytes_read() == pickle.len() as u64);
        for end in 0..pickle.len() {
            let cut = evaluate(&pickle[..end], &Default::default());
            assert!(cut.error().is_some() && cut.root().is_none() && cut.bytes_read() <= end as u64);
            assert!(cut.symbols().len() <= whole.symbols().len());
        }
    }
}

#[test]
fn names_of_python_2_are_those_that_python_3_imports() {
    let program = "import _compat_pickle as c\n\
                   for (m, n), (x, y) in c.NAME_MAPPING.items(): print(m, n, x, y)\n\
                   for m, x in c.IMPORT_MAPPING.items(): print(m, 'some_name', x, 'some_name')\n";
    for line in python(program).lines() {
        let [module, name, new_module, new_name] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        assert_eq!(tensafe_pickle::python3_name(module, name), (new_module, new_name));
    }
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}
