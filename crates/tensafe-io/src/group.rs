//! All tensors of a file in memory, in pieces that are given back one by one.

use std::ops::Range;

use tensafe_format::Header;

use crate::{Buffer, Error, Execution, program::Place};

/// Consecutive tensors of a file whose bytes are one piece of memory, as they are in the file.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their places in the order of [`Header::tensors`].
    pub tensors: Range<usize>,
    /// Where `bytes` begin in the file.
    pub offset: u64,
    /// The bytes of these tensors.
    pub bytes: Buffer,
}

/// A group in the making: where it begins in its memory.
struct Open {
    group: Group,
    memory: usize,
    first: u64,
}

impl Execution {
    /// The tensors of `header`, all of which the execution reads whole and in their order, in groups.
    pub(crate) fn groups(mut self, header: &Header) -> Result<Vec<Group>, Error> {
        let mut groups: Vec<Group> = Vec::new();
        let mut open: Option<Open> = None;
        for (place, info) in header.tensors().enumerate() {
            let loaded = self.next().unwrap_or_else(|| Err(Error::cancelled()))?;
            let (memory, at) = match self.place_of(place) {
                Some(Place::Memory { memory, offset }) => (*memory, *offset),
                _ => (usize::MAX, 0),
            };
            let range = header.file_range(&info);
            // As far from the first tensor of the group in memory as in the file.
            let joined = open.as_mut().filter(|open| {
                open.memory == memory
                    && at.checked_sub(open.first) == range.start.checked_sub(open.group.offset)
            });
            let joined = joined.and_then(|open| Some((open.group.bytes.joined(&loaded.bytes)?, open)));
            if let Some((bytes, open)) = joined {
                open.group.tensors.end = place + 1;
                open.group.bytes = bytes;
                continue;
            }
            groups.extend(open.take().map(|open| open.group));
            let group = Group { tensors: place..place + 1, offset: range.start, bytes: loaded.bytes };
            open = Some(Open { group, memory, first: at });
        }
        groups.extend(open.map(|open| open.group));
        Ok(groups)
    }
}
