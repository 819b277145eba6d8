//! Formats of weights that carry no pickles: safetensors, GGUF, HDF5.

use tensafe_format::{Dtype, Header, LENGTH_FIELD_BYTES, ParseOptions, header_range};

use crate::{
    Finding, Rule,
    input::Input,
    nested,
    scan::{Place, Scan},
    text::{is_template_key, judge_template},
};

/// Judges the header of a safetensors file by every rule of the format.
pub(crate) fn safetensors(input: &Input, place: Place<'_>, scan: &mut Scan<'_>) {
    let options = ParseOptions::default();
    let start = input.read(0..LENGTH_FIELD_BYTES).and_then(|start| {
        let end = header_range(&start, input.len(), &options).map_or(LENGTH_FIELD_BYTES, |range| range.end);
        input.read(0..end)
    });
    let start = match start {
        Ok(start) => start,
        Err(error) => return scan.unread(&error, place),
    };
    let diagnosis = Header::diagnose(&start, input.len(), &options);
    for error in &diagnosis.errors {
        let rule = if error.is_lenient() { Rule::SafetensorsLenient } else { Rule::SafetensorsRule };
        let mut finding = Finding::new(rule, error.to_string());
        finding.offset = error.offset();
        scan.add(place, finding);
    }
    for (key, value) in diagnosis.metadata.iter().flatten() {
        if is_template_key(key) {
            judge_template(value, place, scan);
        }
        nested::look_at(value.as_bytes(), input, place, scan);
    }
    // Bytes without meaning to a tensor may have one to a program that takes them for a file.
    let data = diagnosis.header_bytes.unwrap_or_default().saturating_add(LENGTH_FIELD_BYTES);
    for tensor in diagnosis.tensors.iter().filter(|tensor| matches!(tensor.dtype, Dtype::U8 | Dtype::I8)) {
        let range = tensor.range.start.saturating_add(data)..tensor.range.end.saturating_add(data);
        nested::far(input, &range, place, scan);
    }
}

/// Bytes of an HDF5 file that are searched, from its start and from its end.
const SEARCHED_BYTES: u64 = 16 << 20;

/// Searches an HDF5 file for what Keras writes of Lambda layers. The rest is not read.
pub(crate) fn hdf5(input: &Input, place: Place<'_>, scan: &mut Scan<'_>) {
    let len = input.len();
    let ranges =
        [0..SEARCHED_BYTES.min(len), len.saturating_sub(SEARCHED_BYTES).max(SEARCHED_BYTES.min(len))..len];
    for range in ranges {
        let bytes = match input.read(range.clone()) {
            Ok(bytes) => bytes,
            Err(error) => return scan.unread(&error, place),
        };
        let words: [&[u8]; 2] = [b"\"class_name\": \"Lambda\"", b"\"class_name\":\"Lambda\""];
        if let Some(at) = words.iter().find_map(|word| find(&bytes, word)) {
            let at = range.start.saturating_add(at as u64);
            scan.add(place, Finding::new(Rule::KerasLambda, "a Lambda layer holds code").at(at));
        }
    }
    let text = "HDF5 was searched for Lambda layers and not read beyond";
    scan.add(place, Finding::new(Rule::UnreadFormat, text));
}

fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).position(|part| part == word)
}

/// Bytes of a GGUF file's metadata that are read: its vocabulary is the most of it.
const GGUF_BYTES: u64 = 256 << 20;

/// Reads the metadata of a GGUF file and judges the templates in it.
pub(crate) fn gguf(input: &Input, place: Place<'_>, scan: &mut Scan<'_>) {
    let bytes = match input.read(0..GGUF_BYTES.min(input.len())) {
        Ok(bytes) => bytes,
        Err(error) => return scan.unread(&error, place),
    };
    let mut reader = Gguf { rest: &bytes };
    if reader.templates(place, scan).is_some() {
        scan.add(
            place,
            Finding::new(Rule::Gguf, "the templates were judged, the tensors were not looked at"),
        );
    } else {
        scan.add(place, Finding::new(Rule::UnknownFormat, "the metadata of the GGUF file could not be read"));
    }
}

/// What is left of the metadata. Integers are little-endian, as in every file that is published.
struct Gguf<'b> {
    rest: &'b [u8],
}

impl<'b> Gguf<'b> {
    fn templates(&mut self, place: Place<'_>, scan: &mut Scan<'_>) -> Option<()> {
        self.take(4)?;
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return None;
        }
        self.u64()?;
        for _ in 0..self.u64()? {
            let key = self.text()?;
            let kind = self.u32()?;
            if kind == 8 {
                let value = self.text()?;
                if std::str::from_utf8(key).is_ok_and(is_template_key) {
                    judge_template(&String::from_utf8_lossy(value), place, scan);
                }
            } else {
                self.skip(kind, 0)?;
            }
        }
        Some(())
    }

    fn take(&mut self, bytes: u64) -> Option<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(bytes).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().copied().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.first_chunk().copied().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'b [u8]> {
        let length = self.u64()?;
        self.take(length)
    }

    fn skip(&mut self, kind: u32, depth: u32) -> Option<()> {
        match kind {
            0 | 1 | 7 => self.take(1).map(drop),
            2 | 3 => self.take(2).map(drop),
            4..=6 => self.take(4).map(drop),
            10..=12 => self.take(8).map(drop),
            8 => self.text().map(drop),
            9 if depth < 4 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                // An array of what takes no bytes does not exist: each turn takes some.
                for _ in 0..count {
                    self.skip(kind, depth.saturating_add(1))?;
                }
                Some(())
            }
            _ => None,
        }
    }
}
