//! Checkpoints written byte by byte, and what was made of them, read in the most obvious way.

use std::{collections::BTreeMap, fs, io::Write as _, path::Path, sync::Arc};

use serde_json::Value as Json;
use tensafe_io::{Buffer, MemorySource, Source};
use tensafe_model::{
    ConvertOptions, Error, ErrorKind, Pickled, PickledOptions, PlannedTensor, Progress, load,
};

/// Never ends a conversion.
pub(crate) fn go_on() -> impl FnMut(Progress) -> std::ops::ControlFlow<()> {
    |_| std::ops::ControlFlow::Continue(())
}

// Pickles, as text: protocol 0, and the tuples and dicts of protocol 1.

pub(crate) fn tuple(items: &[i64]) -> String {
    let items: String = items.iter().map(|item| format!("I{item}\n")).collect();
    format!("({items}t")
}

/// A reference to a storage.
pub(crate) fn storage(class: &str, key: &str, count: u64) -> String {
    let (module, name) = class.rsplit_once('.').unwrap_or(("torch", class));
    format!("(Vstorage\nc{module}\n{name}\nV{key}\nVcpu\nI{count}\ntQ")
}

/// `_rebuild_tensor_v2` on any storage.
pub(crate) fn walk(storage: &str, offset: i64, shape: &[i64], strides: &[i64]) -> String {
    let (shape, strides) = (tuple(shape), tuple(strides));
    format!("ctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n{shape}{strides}I00\n}}tR")
}

/// The same, with torch's notes on signs.
pub(crate) fn walk_with(storage: &str, shape: &[i64], strides: &[i64], flag: &str) -> String {
    let (shape, strides) = (tuple(shape), tuple(strides));
    format!("ctorch._utils\n_rebuild_tensor_v2\n({storage}I0\n{shape}{strides}I00\n}}}}V{flag}\nI01\nstR")
}

/// `_rebuild_tensor_v3`: the storage has no type, and the tensor says its own.
pub(crate) fn typed(storage: &str, offset: i64, shape: &[i64], strides: &[i64], dtype: &str) -> String {
    let (shape, strides) = (tuple(shape), tuple(strides));
    format!(
        "ctorch._utils\n_rebuild_tensor_v3\n({storage}I{offset}\n{shape}{strides}I00\n}}ctorch\n{dtype}\n}}tR"
    )
}

/// A tensor of one dimension that is all of its storage.
pub(crate) fn vector(class: &str, key: &str, count: i64) -> String {
    walk(&storage(class, key, count.unsigned_abs()), 0, &[count], &[1])
}

/// `FloatStorage` of so many elements, under its own key.
pub(crate) fn floats(key: &str, count: i64) -> String {
    vector("FloatStorage", key, count)
}

/// A dict of names.
pub(crate) fn dict(entries: &[(&str, &str)]) -> String {
    let entries: String = entries.iter().map(|(name, value)| format!("V{name}\n{value}s")).collect();
    format!("}}{entries}")
}

pub(crate) fn stop(value: impl AsRef<str>) -> Vec<u8> {
    format!("{}.", value.as_ref()).into_bytes()
}

// Containers.

/// Little-endian floats that count from `first`.
pub(crate) fn counting(first: u16, count: u16) -> Vec<u8> {
    (first..first + count).flat_map(|value| f32::from(value).to_le_bytes()).collect()
}

pub(crate) fn bytes_of<const N: usize, T>(numbers: &[T], bytes: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    numbers.iter().flat_map(bytes).collect()
}

/// A member of a zip archive.
pub(crate) struct Member {
    name: String,
    data: Vec<u8>,
    bytes: u32,
    crc: u32,
    method: u16,
}

impl Member {
    pub(crate) fn stored(name: &str, data: &[u8]) -> Self {
        let bytes = u32::try_from(data.len()).unwrap();
        Self { name: name.into(), data: data.to_vec(), bytes, crc: crc32fast::hash(data), method: 0 }
    }

    pub(crate) fn deflated(name: &str, data: &[u8]) -> Self {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).unwrap();
        Self { data: encoder.finish().unwrap(), method: 8, ..Self::stored(name, data) }
    }

    pub(crate) fn with_crc(mut self, crc: u32) -> Self {
        self.crc = crc;
        self
    }

    fn fields(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [20, 0, self.method, 0, 0x21] {
            out.extend(number.to_le_bytes());
        }
        for number in [self.crc, u32::try_from(self.data.len()).unwrap(), self.bytes] {
            out.extend(number.to_le_bytes());
        }
        out.extend(u16::try_from(self.name.len()).unwrap().to_le_bytes());
        out.extend([0; 2]);
        out
    }
}

pub(crate) fn zip(members: impl IntoIterator<Item = Member>) -> Vec<u8> {
    let (mut out, mut directory, mut count) = (Vec::new(), Vec::new(), 0u16);
    for member in members {
        let offset = u32::try_from(out.len()).unwrap();
        out.extend(b"PK\x03\x04");
        out.extend(member.fields());
        out.extend(member.name.as_bytes());
        out.extend(&member.data);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(member.fields());
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(member.name.as_bytes());
        count += 1;
    }
    let offset = u32::try_from(out.len()).unwrap();
    let bytes = u32::try_from(directory.len()).unwrap();
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(bytes.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.extend([0; 2]);
    out
}

/// torch's archive: the pickle, and storages under their keys.
pub(crate) fn torch_members(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<Member> {
    let mut members = vec![Member::stored("m/data.pkl", pickle)];
    members.extend(storages.iter().map(|(key, data)| Member::stored(&format!("m/data/{key}"), data)));
    members.push(Member::stored("m/version", b"3\n"));
    members
}

pub(crate) fn torch(value: impl AsRef<str>, storages: &[(&str, &[u8])]) -> Vec<u8> {
    zip(torch_members(&stop(value), storages))
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// torch's file before 1.6: five pickles, then for each storage a count and its elements.
pub(crate) fn legacy(value: impl AsRef<str>, storages: &[(&str, u64, &[u8])]) -> Vec<u8> {
    let mut out = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    out.extend(stop(value));
    let keys: String = storages.iter().map(|(key, ..)| format!("V{key}\na")).collect();
    out.extend(stop(format!("(l{keys}")));
    for (_, count, data) in storages {
        out.extend(count.to_le_bytes());
        out.extend(*data);
    }
    out
}

pub(crate) fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, data) in members {
        let mut header = vec![0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend(header);
        out.extend(*data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend([0; 1024]);
    out
}

pub(crate) fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let text = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}");
    let len = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend(u16::try_from(len).unwrap().to_le_bytes());
    out.extend(text.as_bytes());
    out.resize(10 + len - 1, b' ');
    out.push(b'\n');
    out.extend(data);
    out
}

/// A pickle's array of numpy whose bytes are ASCII.
pub(crate) fn array(dtype: &str, shape: &[i64], fortran: bool, data: &str) -> String {
    let (shape, order) = (tuple(shape), if fortran { "I01\n" } else { "I00\n" });
    let state = format!("(I1\n{shape}{dtype}{order}{data}tb");
    format!("cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR{state}")
}

pub(crate) fn dtype(name: &str, order: char) -> String {
    format!("cnumpy\ndtype\n(V{name}\nI00\nI01\ntR(I3\nV{order}\nNNNI-1\nI-1\nI0\ntb")
}

// What becomes of them.

pub(crate) fn memory(bytes: impl AsRef<[u8]>) -> Arc<dyn Source> {
    Arc::new(MemorySource::new(Buffer::from_owner(bytes.as_ref().to_vec())))
}

pub(crate) fn open(bytes: impl AsRef<[u8]>) -> Result<Pickled, Error> {
    open_with(bytes, &PickledOptions::default())
}

pub(crate) fn open_with(bytes: impl AsRef<[u8]>, options: &PickledOptions) -> Result<Pickled, Error> {
    Pickled::from_source(memory(bytes), options)
}

/// Opens and loads: names, and what is under them.
pub(crate) fn loaded(
    bytes: impl AsRef<[u8]>,
    options: &ConvertOptions,
) -> Result<Vec<(PlannedTensor, Vec<u8>)>, Error> {
    let pickled = open_with(bytes, &options.read)?;
    let copied = |buffer: Buffer| {
        let mut out = vec![0; buffer.len()];
        buffer.copy_to(&mut out);
        out
    };
    let loaded = load(pickled, options, &mut go_on())?;
    Ok(loaded.into_iter().map(|(tensor, buffer)| (tensor, copied(buffer))).collect())
}

/// The bytes of each tensor by its name, in the order of the file.
pub(crate) fn tensors(bytes: impl AsRef<[u8]>) -> Vec<(String, Vec<u8>)> {
    let all = loaded(bytes, &ConvertOptions::default()).unwrap();
    all.into_iter().map(|(tensor, bytes)| (tensor.name, bytes)).collect()
}

/// Kind and text of the refusal.
pub(crate) fn refusal<T>(result: Result<T, Error>) -> (ErrorKind, String) {
    let error = result.err().expect("it is refused");
    (error.kind(), error.chain().to_string())
}

/// A safetensors file.
pub(crate) struct Read {
    pub(crate) metadata: BTreeMap<String, String>,
    /// Dtype, shape and bytes by name.
    pub(crate) tensors: BTreeMap<String, (String, Vec<u64>, Vec<u8>)>,
}

pub(crate) fn read(path: &Path) -> Read {
    let bytes = fs::read(path).unwrap();
    let start = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let Json::Object(header) = serde_json::from_slice(&bytes[8..start]).unwrap() else { panic!() };
    let mut read = Read { metadata: BTreeMap::new(), tensors: BTreeMap::new() };
    for (name, entry) in header {
        if name == "__metadata__" {
            read.metadata = serde_json::from_value(entry).unwrap();
            continue;
        }
        let range: [usize; 2] = serde_json::from_value(entry["data_offsets"].clone()).unwrap();
        let shape = serde_json::from_value(entry["shape"].clone()).unwrap();
        let data = bytes[start + range[0]..start + range[1]].to_vec();
        read.tensors.insert(name, (entry["dtype"].as_str().unwrap().to_owned(), shape, data));
    }
    read
}

/// The names of what is in a directory, hidden files too, in order.
pub(crate) fn listing(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
