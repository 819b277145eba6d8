//! What is opened strictly, Python's `zipfile` reads the same, whatever bytes come in:
//!
//! - it lists the same names in the same order;
//! - every member has the same bytes, or neither reads it.
//!
//! Two exclusions: members whose checksum is wrong or not written, which `zipfile` refuses and this
//! crate hands out (`check_crc` tells; a deflated stream that refers to bytes before its start is
//! among them), and deflated members whose stream is damaged, which are not looked at before they
//! are read and then refused here, while `zipfile` may stop before the damage.
//!
//! An input is an archive, or changes to one of a few that `zipfile` writes: bytes that are random
//! all over are no archive, and its lengths and checksums are hard to hit.
//!
//! One child runs for all inputs. It begins with the archives to change, a line for each; then it
//! gets a length and the bytes of an archive, and answers with a line for each member and an empty
//! line.
#![no_main]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
};

use libfuzzer_sys::fuzz_target;
use tensafe_container::{CrcState, Limits, Zip};
use tensafe_io::{Buffer, MemorySource, Source};

/// The archives to change, and `torch` with the records of zip64 that torch writes; then names and
/// bytes in hexadecimal, where `!` stands for a wrong checksum, `?` for another
/// refusal, and a line that begins with `X` for an archive that is refused.
const SCRIPT: &str = r#"
import io, struct, sys, zipfile

class Pipe(io.RawIOBase):
    def __init__(self): self.out = io.BytesIO()
    def writable(self): return True
    def write(self, data): return self.out.write(data)

def write(method, pipe=False, zip64=False, comment=b""):
    file = Pipe() if pipe else io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.comment = comment
        for name, data in (("a/b", b"first"), ("c" * 9, b"2" * 40), ("\u00e4", b""), ("d/", b"")):
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(data)
    return (file.out if pipe else file).getvalue()

def torch():
    data = write(0, pipe=True)
    end = data.rindex(b"PK\5\6")
    members, size, start = struct.unpack("<H2L", data[end + 10 : end + 20])
    record = b"PK\6\6" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, members, members, size, start)
    return data[:end] + record + b"PK\6\7" + struct.pack("<LQL", 0, end, 1) + data[end:]

for data in (write(0), write(8), write(0, zip64=True), write(8, pipe=True), torch(), write(0, comment=b"PK" * 9)):
    print(data.hex())
print(flush=True)
stdin, stdout = sys.stdin.buffer, sys.stdout
while line := stdin.readline():
    data = stdin.read(int(line))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                try:
                    content = archive.read(info).hex() or "-"
                except Exception as error:
                    content = "!" if "Bad CRC-32" in str(error) else "?"
                print(info.filename.encode("utf-8", "surrogatepass").hex() or "-", content)
    except Exception as error:
        print("X", repr(error).replace("\n", " "))
    print(flush=True)
"#;

struct Python {
    _child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    originals: Vec<Vec<u8>>,
}

impl Python {
    fn start() -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is needed for this target");
        let stdin = child.stdin.take().expect("it was asked for");
        let stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
        let mut python = Self { _child: child, stdin, stdout, originals: Vec::new() };
        python.originals = python.lines().iter().map(|line| unhex(line)).collect();
        python
    }

    fn read(&mut self, bytes: &[u8]) -> Vec<String> {
        writeln!(self.stdin, "{}", bytes.len()).expect("the child reads");
        self.stdin.write_all(bytes).expect("the child reads");
        self.stdin.flush().expect("the child reads");
        self.lines()
    }

    /// Lines up to an empty one.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).expect("the child answers") > 0, "the child ended");
            if line == "\n" {
                return lines;
            }
            lines.push(line.trim_end().to_owned());
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if digits.is_empty() { "-".to_owned() } else { digits }
}

fn unhex(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(byte).collect()
}

const SIGNATURES: [[u8; 4]; 5] =
    [*b"PK\x01\x02", *b"PK\x03\x04", *b"PK\x05\x06", *b"PK\x06\x07", *b"PK\x07\x08"];

/// The archive that an input stands for.
fn archive(input: &[u8], originals: &[Vec<u8>]) -> Vec<u8> {
    let Some((choice, rest)) = input.split_first() else { return Vec::new() };
    let Some(original) = originals.get(usize::from(*choice)) else { return input.to_vec() };
    let mut bytes = original.clone();
    for change in rest.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([change[1], change[2]])) % bytes.len().max(1);
        match change[0] % 8 {
            0 => bytes.insert(at, change[3]),
            1 if !bytes.is_empty() => {
                drop(bytes.drain(at..(at + usize::from(change[3] % 64)).min(bytes.len())))
            }
            // A copy of a piece, such as a whole record.
            2 => {
                let from = usize::from(change[3]) % bytes.len().max(1);
                let piece = bytes[from..(from + 46).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => {
                let signature = SIGNATURES[usize::from(change[3]) % SIGNATURES.len()];
                bytes.splice(at..at, signature);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = change[3];
                }
            }
        }
    }
    bytes
}

static PYTHON: OnceLock<Mutex<Python>> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let python = PYTHON.get_or_init(|| Mutex::new(Python::start()));
    let mut python = python.lock().expect("one thread");
    let bytes = archive(input, &python.originals);
    let source: Arc<dyn Source> = Arc::new(MemorySource::new(Buffer::from_owner(bytes.clone())));
    let limits = Limits::default().with_decompressed_bytes(1 << 20);
    let Ok(zip) = Zip::open(source, &limits) else { return };
    let theirs = python.read(&bytes);
    assert_eq!(theirs.len(), zip.members().len(), "{theirs:?}");
    for (member, line) in zip.members().iter().zip(&theirs) {
        let (name, content) = line.split_once(' ').expect("a name and bytes");
        assert_eq!(name, hex(member.name().as_bytes()));
        let Ok(read) = zip.read(member) else { continue };
        let mut ours = vec![0; read.len() as usize];
        read.read_at(0, &mut ours).expect("the bytes are there");
        match zip.check_crc(member).expect("the bytes are there") {
            CrcState::Matches => assert_eq!(content, hex(&ours)),
            // A checksum of zero may be the right one.
            CrcState::NotWritten => assert!(matches!(content, "!" | "?") || content == hex(&ours)),
            CrcState::Differs { .. } => assert!(matches!(content, "!" | "?"), "{content}"),
        }
    }
});
