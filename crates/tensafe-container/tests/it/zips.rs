//! Zip archives, built field by field so that each can be wrong.

/// The fields that a local header and an entry of the directory share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    pub(crate) version: u16,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) crc: u32,
    pub(crate) compressed: u32,
    pub(crate) bytes: u32,
    pub(crate) name: Vec<u8>,
    pub(crate) extra: Vec<u8>,
}

/// One member.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    pub(crate) local: Fields,
    pub(crate) central: Fields,
    pub(crate) made_by: u16,
    pub(crate) mode: u32,
    pub(crate) disk: u16,
    pub(crate) data: Vec<u8>,
    pub(crate) before: Vec<u8>,
    pub(crate) descriptor: Vec<u8>,
    /// The offset in the directory, where it is not the true one.
    pub(crate) offset: Option<u32>,
    /// Not written to the directory.
    pub(crate) hidden: bool,
}

impl Part {
    pub(crate) fn stored(name: &str, data: &[u8]) -> Self {
        let fields = Fields {
            version: 20,
            crc: crc32fast::hash(data),
            compressed: u32::try_from(data.len()).unwrap(),
            bytes: u32::try_from(data.len()).unwrap(),
            name: name.into(),
            ..Fields::default()
        };
        Self { local: fields.clone(), central: fields, data: data.to_vec(), ..Self::default() }
    }

    pub(crate) fn deflated(name: &str, data: &[u8]) -> Self {
        use std::io::Write as _;
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).unwrap();
        let packed = encoder.finish().unwrap();
        Self::stored(name, data)
            .both(|fields| {
                fields.method = 8;
                fields.compressed = u32::try_from(packed.len()).unwrap();
            })
            .with(|part| part.data = packed)
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn both(mut self, change: impl Fn(&mut Fields)) -> Self {
        change(&mut self.local);
        change(&mut self.central);
        self
    }

    /// As a writer that cannot go back does it: nothing in the local header, all behind the data.
    pub(crate) fn streamed(self, descriptor: &[u8]) -> Self {
        self.both(|fields| fields.flags |= 8).with(|part| {
            (part.local.crc, part.local.compressed, part.local.bytes) = (0, 0, 0);
            part.descriptor = descriptor.to_vec();
        })
    }
}

/// An archive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Archive {
    pub(crate) prefix: Vec<u8>,
    pub(crate) parts: Vec<Part>,
    pub(crate) before_directory: Vec<u8>,
    pub(crate) behind_directory: Vec<u8>,
    pub(crate) comment: Vec<u8>,
    pub(crate) suffix: Vec<u8>,
    pub(crate) end: End,
    /// Writes the records of zip64, with these changes.
    pub(crate) zip64: Option<End64>,
}

/// What the end record says otherwise than it should.
#[derive(Clone, Debug, Default)]
pub(crate) struct End {
    pub(crate) disk: u16,
    pub(crate) members: Option<u16>,
    pub(crate) bytes: Option<u32>,
    pub(crate) offset: Option<u32>,
    pub(crate) comment: Option<u16>,
}

/// The same of the zip64 record.
#[derive(Clone, Debug, Default)]
pub(crate) struct End64 {
    pub(crate) members: Option<u64>,
    pub(crate) place: Option<u64>,
    pub(crate) size: Option<u64>,
    pub(crate) disks: Option<u32>,
    pub(crate) signature: Option<[u8; 4]>,
}

pub(crate) fn archive(parts: impl IntoIterator<Item = Part>) -> Archive {
    Archive { parts: parts.into_iter().collect(), ..Archive::default() }
}

/// Two plain members, `a` and `b`.
pub(crate) fn two() -> Archive {
    archive([Part::stored("a", b"first"), Part::stored("b", b"second")])
}

/// `id`, length and data of an extra field.
pub(crate) fn extra(id: u16, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).unwrap();
    [&id.to_le_bytes(), &len.to_le_bytes(), data].concat()
}

/// A data descriptor with signature and sizes of 32 bits.
pub(crate) fn descriptor(data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap().to_le_bytes();
    [b"PK\x07\x08".as_slice(), &crc32fast::hash(data).to_le_bytes(), &len, &len].concat()
}

fn fields(out: &mut Vec<u8>, fields: &Fields) {
    for number in [fields.version, fields.flags, fields.method, 0, 0x21] {
        out.extend(number.to_le_bytes());
    }
    for number in [fields.crc, fields.compressed, fields.bytes] {
        out.extend(number.to_le_bytes());
    }
    out.extend(u16::try_from(fields.name.len()).unwrap().to_le_bytes());
    out.extend(u16::try_from(fields.extra.len()).unwrap().to_le_bytes());
}

impl Archive {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The bytes. Offsets do not count the prefix.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut directory = Vec::new();
        let mut members = 0_u16;
        for part in &self.parts {
            out.extend(&part.before);
            let offset = part.offset.unwrap_or_else(|| u32::try_from(out.len()).unwrap());
            out.extend(b"PK\x03\x04");
            fields(&mut out, &part.local);
            out.extend(&part.local.name);
            out.extend(&part.local.extra);
            out.extend(&part.data);
            out.extend(&part.descriptor);
            if part.hidden {
                continue;
            }
            members += 1;
            directory.extend(b"PK\x01\x02");
            directory.extend(part.made_by.to_le_bytes());
            fields(&mut directory, &part.central);
            directory.extend([0; 2]);
            directory.extend(part.disk.to_le_bytes());
            directory.extend([0; 2]);
            directory.extend((part.mode << 16).to_le_bytes());
            directory.extend(offset.to_le_bytes());
            directory.extend(&part.central.name);
            directory.extend(&part.central.extra);
        }
        out.extend(&self.before_directory);
        let offset = out.len();
        out.extend(&directory);
        out.extend(&self.behind_directory);
        let members = self.end.members.unwrap_or(members);
        if let Some(end64) = &self.zip64 {
            self.write_zip64(&mut out, end64, u64::from(members), offset as u64, directory.len() as u64);
        }
        out.extend(b"PK\x05\x06");
        for number in [self.end.disk, self.end.disk, members, members] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.end.bytes.unwrap_or_else(|| u32::try_from(directory.len()).unwrap()).to_le_bytes());
        out.extend(self.end.offset.unwrap_or_else(|| u32::try_from(offset).unwrap()).to_le_bytes());
        let comment = u16::try_from(self.comment.len()).unwrap();
        out.extend(self.end.comment.unwrap_or(comment).to_le_bytes());
        [&*self.prefix, &out, &self.comment, &self.suffix].concat()
    }

    fn write_zip64(&self, out: &mut Vec<u8>, end: &End64, members: u64, offset: u64, bytes: u64) {
        let place = out.len() as u64;
        out.extend(end.signature.unwrap_or(*b"PK\x06\x06"));
        out.extend(end.size.unwrap_or(44).to_le_bytes());
        out.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let members = end.members.unwrap_or(members);
        for number in [members, members, bytes, offset] {
            out.extend(number.to_le_bytes());
        }
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend(end.place.unwrap_or(place).to_le_bytes());
        out.extend(end.disks.unwrap_or(1).to_le_bytes());
    }
}
