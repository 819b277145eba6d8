//! Properties that hold for any bytes at all. Each panics with what differs.

use std::collections::BTreeMap;

use tensafe_format::{
    Bounds, Dtype, Error, Header, Index, Layout, LayoutOptions, Mode, ParseOptions, Region, TensorSpec,
};

use crate::naive;

const STRICT: ParseOptions = ParseOptions::with_mode(Mode::Strict);
const LENIENT: ParseOptions = ParseOptions::with_mode(Mode::Lenient);

fn parse(file: &[u8], options: &ParseOptions) -> Result<Header, Error> {
    Header::parse(file, file.len() as u64, options)
}

/// Lenient reading accepts exactly what the reference accepts, and reads the same; strict reading
/// accepts no more than lenient reading, and reads the same.
///
/// One exclusion: a number in an unused field that lies within a rounding error of the largest
/// float. The reference's JSON library rounds such a number to infinity or not, depending on how it
/// is spelled; tensafe reads what is nearest to it. And on 32-bit hosts, where the reference counts
/// in 32 bits, what it refuses is no measure.
///
/// # Panics
/// Where it does not hold.
pub fn agrees_with_reference(file: &[u8]) {
    let lenient = parse(file, &LENIENT);
    let theirs = safetensors::SafeTensors::read_metadata(file);
    match (&lenient, &theirs) {
        (Ok(ours), Ok((length, theirs))) => same_table(ours, *length, theirs),
        (Err(_), Err(_)) => {}
        (Ok(_), Err(error)) if error.to_string().contains("number out of range") => {}
        (Err(error), Ok(_)) if error.to_string().contains("a number is out of range") => {}
        (Ok(_), Err(_)) if cfg!(target_pointer_width = "32") => {}
        (Ok(_), Err(error)) => panic!("read leniently, refused by the reference: {error}"),
        (Err(error), Ok(_)) => panic!("refused leniently, read by the reference: {error}"),
    }
    match (parse(file, &STRICT), lenient) {
        (Ok(strict), Ok(lenient)) => assert_eq!(strict, lenient, "strict and lenient reading differ"),
        (Ok(_), Err(error)) => panic!("read strictly, refused leniently: {error}"),
        (Err(error), Ok(_)) => {
            assert!(error.is_lenient(), "read leniently, but the error does not say so: {error}");
        }
        // A file of several flaws may be refused for a lenient one first.
        (Err(_), Err(_)) => {}
    }
}

fn same_table(ours: &Header, length: usize, theirs: &safetensors::tensor::Metadata) {
    type Row = (String, Vec<u64>, (u64, u64));
    assert_eq!(ours.data_start(), 8 + length as u64, "start of the data");
    assert_eq!(ours.data_bytes(), theirs.data_len() as u64, "bytes of data");
    let our_table: BTreeMap<String, Row> = ours
        .tensors()
        .map(|t| {
            let offsets = t.data_offsets();
            let row = (t.dtype().to_string(), t.shape().to_vec(), (offsets.start, offsets.end));
            (t.name().to_owned(), row)
        })
        .collect();
    let their_table: BTreeMap<String, Row> = theirs
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let shape = info.shape.iter().map(|d| *d as u64).collect();
            let offsets = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
            (name, (info.dtype.to_string(), shape, offsets))
        })
        .collect();
    assert_eq!(our_table, their_table, "tensors");
    assert_eq!(ours.len(), our_table.len(), "names are unique");
    let theirs = theirs.metadata().as_ref().map(|m| m.clone().into_iter().collect());
    assert_eq!(ours.metadata(), theirs.as_ref(), "metadata");
}

/// A diagnosis is empty exactly when parsing succeeds, and otherwise begins with the error of
/// parsing.
///
/// # Panics
/// Where it does not hold.
pub fn diagnosis_agrees_with_parsing(file: &[u8]) {
    for options in [STRICT, LENIENT] {
        let diagnosis = Header::diagnose(file, file.len() as u64, &options);
        match parse(file, &options) {
            Ok(header) => {
                assert_eq!(diagnosis.errors, [], "{:?}", options.mode);
                let names: Vec<_> = header.tensors().map(|t| t.name()).collect();
                let diagnosed: Vec<_> = diagnosis.tensors.iter().map(|t| t.name.as_str()).collect();
                assert_eq!(names, diagnosed, "{:?}", options.mode);
            }
            Err(error) => assert_eq!(diagnosis.errors.first(), Some(&error), "{:?}", options.mode),
        }
    }
}

/// What is read strictly is what the naive reader reads, and it can be laid out again from its
/// tensors and metadata to a file with the same of both.
///
/// # Panics
/// Where it does not hold.
pub fn round_trips(file: &[u8]) {
    let Ok(header) = parse(file, &STRICT) else { return };
    same_as_naive(&header, file);

    let specs = header.tensors().map(|t| TensorSpec::new(t.name(), t.dtype(), t.shape()));
    let layout = Layout::new(specs, header.metadata(), &LayoutOptions::default())
        .expect("what was read strictly can be written");
    let again = Header::parse(layout.header_bytes(), layout.file_bytes(), &STRICT)
        .expect("what was written is read strictly");
    assert_eq!(header.metadata(), again.metadata());
    assert_eq!(header.data_bytes(), again.data_bytes());
    assert_eq!(header.len(), again.len());
    for (place, (before, after)) in header.tensors_by_name().zip(again.tensors_by_name()).enumerate() {
        assert_eq!(
            (before.name(), before.dtype(), before.shape()),
            (after.name(), after.dtype(), after.shape())
        );
        let position = header.position(before.name()).expect("the name is in the table");
        assert_eq!(layout.file_range(position), Some(again.file_range(&after)), "tensor {place}");
    }

    // Laying out is a projection: once in order, always in order.
    let specs = again.tensors().map(|t| TensorSpec::new(t.name(), t.dtype(), t.shape()));
    let third = Layout::new(specs, again.metadata(), &LayoutOptions::default()).expect("as before");
    assert_eq!(layout.header_bytes(), third.header_bytes());
}

/// The table of a parsed file is the one that the naive reader finds in its bytes.
///
/// # Panics
/// Where it is not.
pub fn same_as_naive(header: &Header, file: &[u8]) {
    let naive = naive::read(file).expect("the naive reader reads what was parsed");
    assert_eq!(header.metadata(), naive.metadata.as_ref());
    assert!(header.tensors_by_name().map(|t| t.name()).eq(naive.tensors.keys()));
    for (name, expected) in &naive.tensors {
        let tensor = header.tensor(name).expect("the name is in the table");
        let (offsets, range) = (tensor.data_offsets(), header.file_range(&tensor));
        assert_eq!(tensor.dtype().name(), expected.dtype, "{name}");
        assert_eq!(tensor.shape(), expected.shape, "{name}");
        assert_eq!((offsets.start, offsets.end), expected.data_offsets, "{name}");
        let place = |at: u64| usize::try_from(at).expect("a place in memory");
        assert_eq!(&file[place(range.start)..place(range.end)], expected.data, "{name}");
    }
}

/// The runs of a region are the naive enumeration of its elements: ascending, disjoint, within the
/// tensor. Elements of less than a byte are cut on byte borders or refused.
///
/// # Panics
/// Where it does not hold, or where the tensor is too large to enumerate.
pub fn runs_cover_the_region(dtype: Dtype, shape: &[u64], index: &[Index]) {
    let clamped = Region::with_bounds(dtype, shape, index, Bounds::Clamp);
    let naive = naive::select(shape, index);
    let (region, expected) = match (clamped, naive) {
        (Ok(region), Some(expected)) => (region, expected),
        (Err(_), None) => return,
        (Ok(region), None) => panic!("{region:?} selected, numpy refuses"),
        // Only a border can be in the way: the tensor's own size, or the cut's.
        (Err(error), Some(_)) => return assert!(dtype.is_sub_byte(), "{error}"),
    };
    assert_eq!(region.shape(), expected.shape);

    let base = 64;
    let runs: Vec<_> = region.runs(base).collect();
    let bits: Vec<u64> = runs.iter().flat_map(|run| run.start * 8..run.end * 8).collect();
    let element_bits =
        |element: &u64| (element * dtype.bits()..(element + 1) * dtype.bits()).map(|b| b + base * 8);
    assert_eq!(bits, expected.elements.iter().flat_map(element_bits).collect::<Vec<_>>());
    assert!(runs.iter().all(|run| run.start < run.end && run.end - run.start == region.run_bytes()));
    assert!(runs.windows(2).all(|pair| pair[0].end <= pair[1].start), "runs ascend and are disjoint");
    assert_eq!(region.run_count(), runs.len() as u64);
    assert_eq!(region.runs(base).size_hint(), (runs.len(), Some(runs.len())));
    assert_eq!(region.bytes(), runs.iter().map(|run| run.end - run.start).sum::<u64>());
    if let (Some(first), Some(last)) = (runs.first(), runs.last()) {
        assert_eq!(region.span(base), first.start..last.end);
        let tensor = shape.iter().product::<u64>() * dtype.bits() / 8;
        assert!(last.end <= base + tensor, "the runs lie within the tensor");
    }

    // Refusing bounds beyond the end changes nothing else.
    if let Ok(refusing) = Region::new(dtype, shape, index) {
        assert_eq!(refusing, region);
    }
}
