//! What to load: tensors, which part of each, into what memory. Pure: a plan reads nothing, and is
//! the same wherever it is made from the same headers and calls.
//!
//! [`lower`](crate::lower) turns a plan into requests, [`Execution`](crate::Execution) carries them out.

use std::{
    hash::{Hash, Hasher},
    ops::Range,
    sync::Arc,
};

use tensafe_format::{Bounds, Dtype, Header, Index, Region, TensorInfo};

use crate::{
    Error,
    scatter::{Dimension, Scatter, is_dense},
};

/// The order in which tensors are read and handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// That of the files and of the bytes in them: what disks like.
    #[default]
    File,
    /// That in which they were added.
    Plan,
}

/// Which part of a tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Selection {
    /// All of it.
    #[default]
    Whole,
    /// What an index expression selects.
    Index(Vec<Index>, Bounds),
    /// One of `world` parts along a dimension, each of `ceil(size / world)` positions; the last ones
    /// may have fewer, or none.
    Shard {
        /// The dimension that is cut.
        dimension: usize,
        /// Which part, from 0.
        rank: u64,
        /// How many parts.
        world: u64,
    },
    /// Ranges of positions along a dimension, one behind the other: parts of fused weights. They
    /// ascend and do not overlap.
    Intervals {
        /// The dimension that is cut.
        dimension: usize,
        /// Half-open, in elements.
        ranges: Vec<Range<u64>>,
    },
}

/// What to load, from one or several files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plan {
    entries: Vec<Entry>,
    order: Order,
    budget: Option<u64>,
    /// Beside this process.
    other_ranks: usize,
}

/// A tensor of a plan, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    name: Arc<str>,
    file: usize,
    dtype: Dtype,
    shape: Vec<u64>,
    part: Part,
    whole: bool,
    /// Where the tensor begins in its file.
    base: u64,
    into: Option<Vec<u64>>,
    pub(crate) scatter: Scatter,
}

/// Where the bytes are: enough to lay them out again for another destination.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Whole(u64),
    Region(u64, Region),
    Intervals,
}

impl Hash for Part {
    // The scatter of the entry says the same in numbers.
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
    }
}

impl Plan {
    /// A plan without tensors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same plan in another order.
    #[must_use]
    pub fn with_order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// The same plan with a bound on the memory, in bytes, that its execution takes at a time: of
    /// tensors that were read and not yet handed out, and of requests. `None` is no bound.
    #[must_use]
    pub fn with_budget(mut self, bytes: Option<u64>) -> Self {
        self.budget = bytes;
        self
    }

    /// The same plan where `ranks` processes of one host, this one too, read at the same time, each by a plan of
    /// its own: they share the requests that keep a local disk busy. 0 counts as 1, which is what a plan has
    /// unless it is told.
    #[must_use]
    pub fn with_local_ranks(mut self, ranks: usize) -> Self {
        self.other_ranks = ranks.saturating_sub(1);
        self
    }

    /// Adds a part of a tensor of the file at the place `file` among those that are given to the
    /// execution. Returns the entry's place.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) where the part is none of the tensor, or cuts elements of
    /// less than a byte beside a byte border: the error names the nearest cut.
    pub fn add(
        &mut self,
        file: usize,
        header: &Header,
        info: &TensorInfo<'_>,
        selection: &Selection,
    ) -> Result<usize, Error> {
        let base = header.file_range(info).start;
        let (shape, part, scatter) = match selection {
            Selection::Intervals { dimension, ranges } => {
                let (shape, scatter) = intervals(base, info, *dimension, ranges)?;
                (shape, Part::Intervals, scatter)
            }
            Selection::Whole => {
                let scatter = Scatter::of_bytes(base, info.bytes());
                (info.shape().to_vec(), Part::Whole(base), scatter)
            }
            other => {
                let region = region(info, other)?;
                let scatter = Scatter::of_region(&region, base, None)?;
                (region.shape().to_vec(), Part::Region(base, region), scatter)
            }
        };
        let whole = scatter.single().is_some_and(|run| run.len == info.bytes()) || info.bytes() == 0;
        let (name, dtype) = (Arc::from(info.name()), info.dtype());
        self.entries.push(Entry { name, file, dtype, shape, part, whole, base, into: None, scatter });
        Ok(self.entries.len() - 1)
    }

    /// Has an entry read into memory of the caller, whose strides are given in bytes for each dimension
    /// of the entry's shape. The memory itself comes with the execution.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) where the strides do not fit the shape, put two elements in
    /// one place, or are not row-major where elements share bytes or where the part is of intervals.
    pub fn read_into(&mut self, entry: usize, strides: &[u64]) -> Result<(), Error> {
        let Some(entry) = self.entries.get_mut(entry) else {
            return Err(Error::out_of_bounds(0..entry as u64, self.entries.len() as u64));
        };
        match &entry.part {
            Part::Region(base, region) => entry.scatter = Scatter::of_region(region, *base, Some(strides))?,
            Part::Whole(base) => {
                let whole = Region::new(entry.dtype, &entry.shape, &[]);
                let whole = whole.map_err(|e| Error::selection(&entry.name, e))?;
                entry.scatter = Scatter::of_region(&whole, *base, Some(strides))?;
            }
            Part::Intervals if !is_dense(entry.dtype, &entry.shape, strides) => {
                return Err(Error::strides(entry.dtype, &entry.shape, strides));
            }
            Part::Intervals => {}
        }
        entry.into = Some(strides.to_vec());
        Ok(())
    }

    /// Has an entry read into dense, row-major memory of the caller, unless it is read into such already.
    /// Unlike [`read_into`](Self::read_into) this has a word for elements of less than a byte.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) where there is no such entry.
    pub fn read_into_dense(&mut self, entry: usize) -> Result<(), Error> {
        let count = self.entries.len() as u64;
        let place = entry as u64..(entry as u64).saturating_add(1);
        let entry = self.entries.get_mut(entry).ok_or_else(|| Error::out_of_bounds(place, count))?;
        entry.into.get_or_insert_default();
        Ok(())
    }

    /// Keeps the entries for which `keep` says yes.
    pub fn retain(&mut self, keep: impl FnMut(&Entry) -> bool) {
        self.entries.retain(keep);
    }

    /// The entries, in the order in which they were added.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The order of reading.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }

    /// The bound on memory, in bytes.
    #[must_use]
    pub fn budget(&self) -> Option<u64> {
        self.budget
    }

    /// Processes of one host that read at the same time.
    #[must_use]
    pub fn local_ranks(&self) -> usize {
        self.other_ranks.saturating_add(1)
    }

    /// Bytes of all entries.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.bytes()))
    }

    /// A number that equal plans have in common, in every process of the same build: ranks compare it
    /// to see that they agree. It depends on nothing but the headers and the calls that made the plan.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut state = Fnv(0xcbf2_9ce4_8422_2325);
        self.hash(&mut state);
        state.finish()
    }

    /// The places of the entries in the order of reading.
    pub(crate) fn ordered(&self) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.entries.len()).collect();
        if self.order == Order::File {
            // What has no bytes keeps its place among the others.
            let start = |e: &Entry| e.scatter.span().map_or(e.base, |span| span.start);
            let key = |place: &usize| self.entries.get(*place).map(|e| (e.file, start(e)));
            places.sort_by_key(key);
        }
        places
    }
}

impl Entry {
    /// The tensor's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The place of its file among the plan's files.
    #[must_use]
    pub fn file(&self) -> usize {
        self.file
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape of the part, row-major, in elements.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Bytes of the part.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.scatter.bytes()
    }

    /// Whether the part is the whole tensor.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The strides of the caller's memory in bytes, where it is read into such; none where that is dense
    /// by [`Plan::read_into_dense`].
    #[must_use]
    pub fn destination_strides(&self) -> Option<&[u64]> {
        self.into.as_deref()
    }
}

fn region(info: &TensorInfo<'_>, selection: &Selection) -> Result<Region, Error> {
    let named = |e| Error::selection(info.name(), e);
    match selection {
        Selection::Index(index, bounds) => {
            Region::with_bounds(info.dtype(), info.shape(), index, *bounds).map_err(named)
        }
        Selection::Shard { dimension, rank, world } => {
            let size = size_of(info, *dimension)?;
            if *world == 0 || rank >= world {
                return Err(Error::shard(info.name(), *rank, *world));
            }
            let each = size.div_ceil(*world);
            let start = rank.saturating_mul(each).min(size);
            let mut index = vec![Index::FULL; *dimension];
            index.push(Index::range(start..start.saturating_add(each).min(size)));
            Region::new(info.dtype(), info.shape(), &index).map_err(named)
        }
        _ => Region::new(info.dtype(), info.shape(), &[]).map_err(named),
    }
}

fn size_of(info: &TensorInfo<'_>, dimension: usize) -> Result<u64, Error> {
    let size = info.shape().get(dimension).copied();
    size.ok_or_else(|| Error::no_dimension(info.name(), dimension, info.shape()))
}

fn intervals(
    base: u64,
    info: &TensorInfo<'_>,
    dimension: usize,
    ranges: &[Range<u64>],
) -> Result<(Vec<u64>, Scatter), Error> {
    let size = size_of(info, dimension)?;
    let mut reached = 0;
    let mut count = 0u64;
    for range in ranges {
        if range.start < reached || range.end < range.start || range.end > size {
            return Err(Error::interval(info.name(), range.clone(), reached, size));
        }
        reached = range.end;
        count = count.saturating_add(range.end - range.start);
        // A region of it alone checks the borders of elements that share bytes.
        let mut index = vec![Index::FULL; dimension];
        index.push(Index::range(range.clone()));
        Region::new(info.dtype(), info.shape(), &index).map_err(|e| Error::selection(info.name(), e))?;
    }
    if count == size {
        // All of it: rows may begin within a byte.
        return Ok((info.shape().to_vec(), Scatter::of_bytes(base, info.bytes())));
    }
    let (before, after) = info.shape().split_at(dimension.min(info.shape().len()));
    let mut shape = info.shape().to_vec();
    if let Some(cut) = shape.get_mut(dimension) {
        *cut = count;
    }
    let after: u64 = after.iter().skip(1).product();
    let position_bits = info.dtype().bits().saturating_mul(after);
    if !position_bits.is_multiple_of(8) {
        // The positions share bytes; the cuts are on byte borders, so that pairs of them do not.
        let unit = if position_bits.is_multiple_of(4) { 2 } else { 4 };
        let ranges: Vec<_> = ranges.iter().map(|r| r.start / unit..r.end / unit).collect();
        let inner = position_bits.saturating_mul(unit) / 8;
        let dimension = Dimension { outer: before.iter().product(), size: size / unit, inner };
        return Ok((shape, Scatter::of_intervals(base, &dimension, &ranges)));
    }
    let dimension = Dimension { outer: before.iter().product(), size, inner: position_bits / 8 };
    Ok((shape, Scatter::of_intervals(base, &dimension, ranges)))
}

/// FNV-1a: short, and the same everywhere, which the standard library's hasher does not promise.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use tensafe_format::{Bounds, Dtype, Header, Index, Layout, LayoutOptions, ParseOptions, TensorSpec};

    use super::{Order, Plan, Selection};

    fn header(dtype: Dtype, shape: &[u64]) -> Header {
        let spec = TensorSpec::new("w", dtype, shape);
        let layout = Layout::new([spec], None, &LayoutOptions::default()).unwrap();
        Header::parse(layout.header_bytes(), layout.file_bytes(), &ParseOptions::default()).unwrap()
    }

    fn bytes_of(header: &Header, selection: &Selection) -> (Vec<u64>, Vec<u64>) {
        let mut plan = Plan::new();
        let info = header.tensor("w").unwrap();
        plan.add(0, header, &info, selection).unwrap();
        let entry = &plan.entries()[0];
        let start = header.file_range(&info).start;
        let bytes = entry.scatter.runs_from(0).flat_map(|run| run.from - start..run.from - start + run.len);
        (entry.shape().to_vec(), bytes.collect())
    }

    #[test]
    fn shards_cover_a_dimension_and_the_last_ones_may_be_short() {
        let header = header(Dtype::U8, &[2, 5]);
        let parts: Vec<_> = (0..4)
            .map(|rank| bytes_of(&header, &Selection::Shard { dimension: 1, rank, world: 4 }))
            .collect();
        let shapes: Vec<_> = parts.iter().map(|(shape, _)| shape[1]).collect();
        assert_eq!(shapes, [2, 2, 1, 0]);
        assert_eq!(parts[1].1, [2, 3, 7, 8]);
        assert_eq!(parts[2].1, [4, 9]);
    }

    #[test]
    fn intervals_of_pairs_that_share_a_byte() {
        let header = header(Dtype::F4, &[2, 8]);
        let (shape, bytes) =
            bytes_of(&header, &Selection::Intervals { dimension: 1, ranges: vec![0..2, 4..8] });
        assert_eq!((shape, bytes), (vec![2, 6], vec![0, 2, 3, 4, 6, 7]));
        let mut plan = Plan::new();
        let cut = Selection::Intervals { dimension: 1, ranges: vec![1..4, 6..8] };
        let error = plan.add(0, &header, &header.tensor("w").unwrap(), &cut).unwrap_err();
        assert!(error.chain().to_string().contains("0..4"), "{}", error.chain());
    }

    #[test]
    fn parts_that_are_none_are_refused_with_their_numbers() {
        let header = header(Dtype::F32, &[4, 4]);
        let info = header.tensor("w").unwrap();
        let mut text = Vec::new();
        for selection in [
            Selection::Shard { dimension: 2, rank: 0, world: 2 },
            Selection::Shard { dimension: 0, rank: 2, world: 2 },
            Selection::Shard { dimension: 0, rank: 0, world: 0 },
            Selection::Intervals { dimension: 0, ranges: vec![0..2, 1..3] },
            Selection::Intervals { dimension: 0, ranges: vec![0..0, 3..5] },
            Selection::Index(vec![Index::At(4)], Bounds::Refuse),
        ] {
            let error = Plan::new().add(0, &header, &info, &selection).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage);
            text.push(error.chain().to_string());
        }
        assert_eq!(
            text,
            [
                "tensor `w`: dimension 2 asked for, the shape [4, 4] has 2",
                "tensor `w`: part 2 of 2 asked for, needed a part from 0 to below their number",
                "tensor `w`: part 0 of 0 asked for, needed a part from 0 to below their number",
                "tensor `w`: interval 1..3 of a dimension of 4, needed one that begins at 2 or later and ends by 4",
                "tensor `w`: interval 3..5 of a dimension of 4, needed one that begins at 0 or later and ends by 4",
                "tensor `w`: index 4 out of bounds for tensor dimension #0 of size 4",
            ]
        );
    }

    #[test]
    fn equal_plans_have_equal_fingerprints_and_others_do_not() {
        let header = header(Dtype::F32, &[4, 4]);
        let info = header.tensor("w").unwrap();
        let make = |selection, order| {
            let mut plan = Plan::new().with_order(order);
            plan.add(0, &header, &info, &selection).unwrap();
            plan
        };
        let shard = |rank| Selection::Shard { dimension: 0, rank, world: 2 };
        let one = make(shard(0), Order::File);
        assert_eq!(one.fingerprint(), make(shard(0), Order::File).fingerprint());
        assert_ne!(one.fingerprint(), make(shard(1), Order::File).fingerprint());
        assert_ne!(one.fingerprint(), make(shard(0), Order::Plan).fingerprint());
        assert_ne!(one.fingerprint(), one.clone().with_budget(Some(1 << 30)).fingerprint());
    }
}
