//! Against the published implementation: lenient reading accepts what it accepts, of files that are
//! nearly valid.

use std::fmt;

use proptest::{collection, option, prelude::*, sample};
use serde_json::Value;
use tensafe_format::Mode;
use tensafe_testkit::{Verdict, checks, corpus, strategies};

/// Pieces that mean something in a header.
const PIECES: &[&str] = &[
    " ",
    "\n",
    "\t",
    "\r",
    "\0",
    "\u{c}",
    "\u{feff}",
    ",",
    ":",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    "\\u0061",
    "0",
    "1",
    "-",
    "-0",
    "1.0",
    "1e1",
    "1e400",
    "null",
    "true",
    "\"\"",
    "[]",
    "{}",
    "\"__metadata__\":{},",
    "\"x\":1,",
    "\"shape\":[1],",
    "\"dtype\":\"U8\",",
    "18446744073709551615",
    "4294967296,4294967296,",
    "{\"F32\":null}",
];

/// A change of a header's text. Places are fractions of its length.
#[derive(Clone, Debug)]
enum Change {
    Flip(sample::Index, u32),
    Insert(sample::Index, &'static str),
    Remove(sample::Index, usize),
    /// Puts a member of the object in a second time, at the front, perhaps with another's value.
    Repeat(sample::Index, sample::Index),
    /// Spells a letter as an escape.
    Escape(sample::Index),
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<sample::Index>(), 0u32..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (any::<sample::Index>(), sample::select(PIECES)).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (any::<sample::Index>(), 1usize..6).prop_map(|(at, count)| Change::Remove(at, count)),
        (any::<sample::Index>(), any::<sample::Index>())
            .prop_map(|(name, value)| Change::Repeat(name, value)),
        any::<sample::Index>().prop_map(Change::Escape),
    ]
}

impl Change {
    fn apply(&self, header: &mut Vec<u8>) {
        let place = |at: &sample::Index| at.index(header.len().max(1)).min(header.len());
        match self {
            Self::Flip(at, bit) => {
                let at = place(at);
                if let Some(byte) = header.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Insert(at, piece) => {
                let at = place(at);
                header.splice(at..at, piece.bytes());
            }
            Self::Remove(at, count) => {
                let at = place(at);
                header.drain(at..header.len().min(at + count));
            }
            Self::Repeat(name, value) => {
                let Ok(Value::Object(members)) = serde_json::from_slice(header) else { return };
                let Some(open) = header.iter().position(|b| *b == b'{') else { return };
                if members.is_empty() {
                    return;
                }
                let name = members.keys().nth(name.index(members.len())).unwrap();
                let value = members.values().nth(value.index(members.len())).unwrap();
                let member = format!("{}:{value},", Value::from(name.as_str()));
                header.splice(open + 1..open + 1, member.into_bytes());
            }
            Self::Escape(at) => {
                let letters: Vec<usize> =
                    (0..header.len()).filter(|at| header[*at].is_ascii_alphabetic()).collect();
                if !letters.is_empty() {
                    let at = letters[at.index(letters.len())];
                    let escape = format!("\\u{:04x}", header[at]);
                    header.splice(at..=at, escape.into_bytes());
                }
            }
        }
    }
}

/// Files that are read, at least leniently: those of the corpus and generated ones.
fn bases() -> impl Strategy<Value = Vec<u8>> {
    let small = corpus().into_iter().filter(|c| c.verdict != Verdict::Reject && c.bytes.len() < 4096);
    prop_oneof![sample::select(small.map(|case| case.bytes).collect::<Vec<_>>()), strategies::files(),]
}

/// A file, changed. The length field is put right, or left as it was.
fn changed_files() -> impl Strategy<Value = File> {
    let ends = option::weighted(0.1, any::<sample::Index>());
    let parts = (bases(), collection::vec(changes(), 0..4), prop::bool::weighted(0.9), ends);
    parts.prop_map(|(base, changes, right_length, end)| {
        let length = usize::try_from(u64::from_le_bytes(base[..8].try_into().unwrap())).unwrap();
        let (mut header, data) = (base[8..8 + length].to_vec(), &base[8 + length..]);
        for change in changes {
            change.apply(&mut header);
        }
        let length = if right_length { header.len() } else { length };
        let mut file = (length as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend(data);
        if let Some(end) = end {
            file.truncate(end.index(file.len()));
        }
        File(file)
    })
}

/// Shown as text where a property fails.
struct File(Vec<u8>);

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lenient_reading_accepts_what_the_reference_accepts(file in changed_files()) {
        checks::agrees_with_reference(&file.0);
    }

    #[test]
    fn a_diagnosis_agrees_with_parsing(file in changed_files()) {
        checks::diagnosis_agrees_with_parsing(&file.0);
    }

    #[test]
    fn what_is_read_strictly_round_trips(file in changed_files()) {
        checks::round_trips(&file.0);
    }
}

#[test]
fn the_changes_leave_many_files_readable() {
    // Else the properties above would only compare refusals.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = changed_files();
    let read = (0..400)
        .filter(|_| {
            let file = proptest::strategy::ValueTree::current(&strategy.new_tree(&mut runner).unwrap());
            crate::parse(&file.0, Mode::Lenient).is_ok()
        })
        .count();
    assert!((100..390).contains(&read), "{read} of 400 were read");
}

/// S-05: a number that is not used is still read.
#[test]
fn numbers_of_unused_fields_are_read_where_the_reference_reads_them() {
    let zeros = "0".repeat(400);
    let numbers = [
        ("-0", true),
        ("-0.0e-0", true),
        ("1E+5", true),
        ("-1e308", true),
        ("1.7976931348623157e308", true),
        ("17976931348623157e292", true),
        ("4.9e-324", true),
        ("1e-400", true),
        ("0e99999999999", true),
        ("-1e-99999999999", true),
        ("18446744073709551616", true),
        (&format!("1{zeros}e-400"), true),
        (&format!("0.{zeros}1e401"), true),
        ("1e309", false),
        ("-1e309", false),
        ("1e99999999999", false),
        (&format!("1{zeros}"), false),
        ("01", false),
        (&zeros, false),
    ];
    let file = |number: &str| {
        crate::file(&format!(r#"{{"a":{{"dtype":"U8","shape":[],"data_offsets":[0,1],"x":{number}}}}}"#), 1)
    };
    for (number, good) in numbers {
        let file = file(number);
        assert_eq!(crate::parse(&file, Mode::Lenient).is_ok(), good, "{number}");
        assert_eq!(safetensors::SafeTensors::read_metadata(&file).is_ok(), good, "{number}");
    }

    // The exclusion of `agrees_with_reference`: below the largest float, and refused all the same.
    let file = file("1.7976931348623156999999999999999999e308");
    assert!(crate::parse(&file, Mode::Lenient).is_ok());
    assert!(safetensors::SafeTensors::read_metadata(&file).is_err());
}
