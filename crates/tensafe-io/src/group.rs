//! All tensors of a file in memory: which of them share one piece, so that each large tensor's memory
//! is given back with the tensor, and thousands of small ones do not cost a piece each.

use std::ops::Range;

use tensafe_format::{Header, TensorInfo};

use crate::Buffer;

/// Bytes that the tensors of one group may have; a tensor of more is a group of its own.
const MOST_BYTES: u64 = 64 << 10;

/// Consecutive tensors of a file whose bytes are one piece of memory.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their places in the order of [`Header::tensors`].
    pub tensors: Range<usize>,
    /// Where `bytes` begin in the file.
    pub offset: u64,
    /// The bytes of these tensors.
    pub bytes: Buffer,
}

/// A group before its bytes are there: its tensors, and their bytes counted from the start of the
/// file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) tensors: Range<usize>,
    pub(crate) range: Range<u64>,
}

/// Cuts the tensors into groups. In memory that is aligned itself, each tensor of a group is aligned
/// for its elements.
pub(crate) fn plan(header: &Header) -> Vec<Planned> {
    let mut groups: Vec<Planned> = Vec::new();
    for (place, tensor) in header.tensors().enumerate() {
        let range = header.file_range(&tensor);
        match groups.last_mut().filter(|group| joins(&group.range, &range, &tensor)) {
            Some(group) => {
                group.tensors.end = place + 1;
                group.range.end = range.end;
            }
            None => groups.push(Planned { tensors: place..place + 1, range }),
        }
    }
    groups
}

fn joins(group: &Range<u64>, tensor: &Range<u64>, info: &TensorInfo<'_>) -> bool {
    group.end == tensor.start
        && tensor.end.saturating_sub(group.start) <= MOST_BYTES
        && tensor.start.saturating_sub(group.start).is_multiple_of(info.dtype().alignment_bytes())
}

#[cfg(test)]
mod tests {
    use tensafe_format::{Dtype, Header, Layout, LayoutOptions, ParseOptions, TensorSpec};

    use super::{MOST_BYTES, plan};

    fn header(tensors: &[(&str, Dtype, u64)]) -> Header {
        let specs = tensors.iter().map(|(name, dtype, len)| TensorSpec::new(*name, *dtype, [*len]));
        let layout = Layout::new(specs, None, &LayoutOptions::default()).unwrap();
        Header::parse(layout.header_bytes(), layout.file_bytes(), &ParseOptions::default()).unwrap()
    }

    #[test]
    fn small_neighbours_share_a_group_and_a_large_tensor_has_its_own() {
        let most = MOST_BYTES;
        let header = header(&[
            ("a", Dtype::U8, most / 2),
            ("b", Dtype::U8, most / 2),
            ("c", Dtype::U8, 1),
            ("d", Dtype::U8, most + 1),
            ("e", Dtype::U8, 0),
            ("f", Dtype::U8, 7),
        ]);
        let groups = plan(&header);
        let tensors: Vec<_> = groups.iter().map(|group| group.tensors.clone()).collect();
        assert_eq!(tensors, [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(groups[0].range.start, header.data_start());
        assert!(groups.windows(2).all(|pair| pair[0].range.end == pair[1].range.start));
        assert_eq!(groups[3].range.end, header.file_bytes());
    }

    #[test]
    fn a_tensor_that_a_group_would_misalign_begins_another() {
        let text = br#"{"u":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"f":{"dtype":"F32","shape":[1],"data_offsets":[3,7]}}"#;
        let mut file = (text.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(text);
        let header = Header::parse(&file, file.len() as u64 + 7, &ParseOptions::default()).unwrap();
        assert_eq!(plan(&header).len(), 2);
    }

    #[test]
    fn a_file_without_tensors_has_no_groups() {
        assert!(plan(&header(&[])).is_empty());
    }
}
