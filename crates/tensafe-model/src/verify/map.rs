//! The map of a file's bytes: which part of it is whose, as far as its header can be read.

use std::ops::Range;

use tensafe_format::{DiagnosedTensor, Diagnosis, LENGTH_FIELD_BYTES, Rule};

use super::{Segment, SegmentKind};

pub(super) fn map(
    diagnosis: &Diagnosis,
    file_bytes: u64,
    header_bytes: Option<u64>,
    complete: bool,
) -> Vec<Segment> {
    let mut map = Map { segments: Vec::new(), file_bytes };
    let Some(header_bytes) = header_bytes else {
        map.push(SegmentKind::Length, 0..file_bytes, &[]);
        map.push(SegmentKind::Missing, file_bytes..LENGTH_FIELD_BYTES, &[]);
        return map.segments;
    };
    map.push(SegmentKind::Length, 0..LENGTH_FIELD_BYTES, &[]);
    let refused = diagnosis.errors.iter().any(|e| e.rule() == Some(Rule::HEADER_LIMIT));
    let end = header_bytes.checked_add(LENGTH_FIELD_BYTES).filter(|_| !refused);
    let Some(data_start) = end else {
        map.push(SegmentKind::Unknown, LENGTH_FIELD_BYTES..file_bytes, &[]);
        return map.segments;
    };
    map.push(SegmentKind::Header, LENGTH_FIELD_BYTES..data_start.min(file_bytes), &[]);
    map.push(SegmentKind::Missing, file_bytes.max(LENGTH_FIELD_BYTES)..data_start, &[]);
    let covered = map.tensors(&diagnosis.tensors, data_start);
    map.push(SegmentKind::Trailing, covered..file_bytes, &[]);
    if !complete {
        // What could not be read may lie where nothing that could be read does.
        let unclaimed = |s: &&mut Segment| matches!(s.kind, SegmentKind::Gap | SegmentKind::Trailing);
        for segment in map.segments.iter_mut().filter(unclaimed) {
            segment.kind = SegmentKind::Unknown;
        }
    }
    map.segments.sort_by_key(|segment| segment.range.start);
    map.segments
}

struct Map {
    segments: Vec<Segment>,
    file_bytes: u64,
}

impl Map {
    fn push(&mut self, kind: SegmentKind, range: Range<u64>, tensors: &[&DiagnosedTensor]) {
        if !range.is_empty() {
            let tensors = tensors.iter().map(|tensor| tensor.name.clone()).collect();
            self.segments.push(Segment { kind, range, tensors });
        }
    }

    /// Places tensors that are in the order of their offsets; returns where the last of them ends.
    fn tensors(&mut self, tensors: &[DiagnosedTensor], data_start: u64) -> u64 {
        let there = |range: Range<u64>, end: u64| range.start..range.end.min(end);
        let mut covered = data_start;
        let mut owner: Option<&DiagnosedTensor> = None;
        let mut missing: Option<&DiagnosedTensor> = None;
        // Offsets that end before they begin claim nothing.
        for tensor in tensors.iter().filter(|tensor| tensor.range.start <= tensor.range.end) {
            let begin = data_start.saturating_add(tensor.range.start);
            let end = data_start.saturating_add(tensor.range.end);
            self.push(SegmentKind::Gap, there(covered..begin, self.file_bytes), &[]);
            self.push(SegmentKind::Tensor, there(begin..end, self.file_bytes), &[tensor]);
            let shared = there(begin..end.min(covered), self.file_bytes);
            let both = [owner.unwrap_or(tensor), tensor];
            self.push(SegmentKind::Overlap, shared, &both);
            if end > self.file_bytes {
                missing = missing.or(Some(tensor));
            }
            if end >= covered {
                covered = end;
                owner = Some(tensor);
            }
        }
        let from = self.file_bytes.max(data_start);
        self.push(SegmentKind::Missing, from..covered, missing.as_slice());
        covered
    }
}
