//! [`Gather`] against a reader that takes one element after another.

use std::{
    fs,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use proptest::prelude::*;
use tensafe_format::Dtype;
use tensafe_io::{Identity, Latency, Source, SourceInfo};
use tensafe_pickle::Element;

use super::{Conversion, ConvertOptions};
use crate::{
    ErrorKind, Pickled,
    cast::{CASTABLE, Cast},
    gather::Gather,
    pickled::{FoundTensor, Placed, swapped_bytes},
};

/// Bytes that are counted as they are read.
#[derive(Debug, Default)]
struct Counted {
    bytes: Vec<u8>,
    reads: AtomicUsize,
    total: AtomicU64,
    largest: AtomicUsize,
}

impl Counted {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }
}

impl Source for Counted {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), tensafe_io::Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(out.len() as u64, Ordering::Relaxed);
        self.largest.fetch_max(out.len(), Ordering::Relaxed);
        let found = usize::try_from(offset).ok().and_then(|at| self.bytes.get(at..at + out.len()));
        let Some(found) = found else {
            let left = self.len().saturating_sub(offset);
            return Err(tensafe_io::Error::short(None, offset, left, out.len() as u64));
        };
        out.copy_from_slice(found);
        Ok(())
    }

    fn identity(&self) -> Result<Option<Identity>, tensafe_io::Error> {
        Ok(None)
    }

    fn info(&self) -> SourceInfo {
        SourceInfo::new(Latency::Memory)
    }

    fn path(&self) -> Option<&Path> {
        None
    }
}

/// A tensor that lies within its storage, and the storage.
#[derive(Debug)]
struct Case {
    tensor: FoundTensor,
    bytes: Vec<u8>,
    /// Bytes of the source before the storage, and behind it.
    around: (u64, u64),
    big_endian: bool,
    cast: Option<Cast>,
}

impl Case {
    fn storage(&self) -> (Arc<Counted>, Placed) {
        let source = Arc::new(Counted::new(self.bytes.clone()));
        let range = self.around.0..self.bytes.len() as u64 - self.around.1;
        let whole: Arc<dyn Source> = Arc::<Counted>::clone(&source);
        (source, Placed { source: whole, range, big_endian: self.big_endian })
    }

    /// Element by element, in the order of the indices.
    fn naive(&self) -> Vec<u8> {
        let tensor = &self.tensor;
        let width = usize::try_from(tensor.element.bytes()).unwrap();
        let count: u64 = tensor.shape.iter().product();
        let mut out = Vec::new();
        for number in 0..count {
            let (mut rest, mut place) = (number, i64::try_from(tensor.offset).unwrap());
            for (length, stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
                place += stride * i64::try_from(rest % length).unwrap();
                rest /= length;
            }
            let start = usize::try_from(self.around.0).unwrap() + usize::try_from(place).unwrap() * width;
            let mut element = self.bytes[start..start + width].to_vec();
            let part = swapped_bytes(tensor.element);
            for (number, part) in element.chunks_exact_mut(part).enumerate() {
                if self.big_endian {
                    part.reverse();
                }
                if tensor.negative {
                    negate(tensor.element, part);
                }
                if tensor.conjugate && number == 1 {
                    *part.last_mut().unwrap() ^= 0x80;
                }
            }
            if let Some(cast) = self.cast {
                cast.apply(&mut element);
            }
            out.extend(element);
        }
        out
    }
}

fn negate(element: Element, number: &mut [u8]) {
    let name = element.name();
    if ["float", "bfloat", "complex"].iter().any(|kind| name.starts_with(kind)) {
        *number.last_mut().unwrap() ^= 0x80;
        return;
    }
    let mut bytes = [0; 8];
    bytes[..number.len()].copy_from_slice(number);
    let negative = u64::from_le_bytes(bytes).wrapping_neg().to_le_bytes();
    number.copy_from_slice(&negative[..number.len()]);
}

const ELEMENTS: [Element; 12] = [
    Element::U8,
    Element::I8,
    Element::I16,
    Element::F16,
    Element::BF16,
    Element::F32,
    Element::QI32,
    Element::F64,
    Element::I64,
    Element::C32,
    Element::C64,
    Element::C128,
];

/// Steps without a gap, the dimensions in another order; or any steps at all.
fn strides(shape: &[u64], order: &[usize], random: &[i64], packed: bool) -> Vec<i64> {
    if !packed {
        return random[..shape.len()].to_vec();
    }
    let mut strides = vec![0; shape.len()];
    let mut step = 1;
    for dimension in order.iter().filter(|dimension| **dimension < shape.len()) {
        strides[*dimension] = step;
        step *= i64::try_from(shape[*dimension].max(1)).unwrap();
    }
    strides
}

fn case() -> impl Strategy<Value = Case> {
    let shape = prop::collection::vec(prop_oneof![1 => Just(0u64), 3 => Just(1), 12 => 2u64..7], 0..=4);
    let order = Just(vec![0, 1, 2, 3]).prop_shuffle();
    let step = prop_oneof![2 => Just(0i64), 4 => Just(1), 2 => -9i64..40];
    let random = prop::collection::vec(step, 4);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.6));
    let sizes = (0u64..5, 0u64..4, 0u64..4, 0usize..ELEMENTS.len(), 0usize..8, any::<u64>());
    (shape, order, random, flags, sizes).prop_map(|(shape, order, random, flags, sizes)| {
        let (big_endian, conjugate, negative, packed) = flags;
        let (slack, before, behind, element, cast, seed) = sizes;
        let element = ELEMENTS[element];
        let strides = strides(&shape, &order, &random, packed);
        let reach = |length: &u64, stride: &i64| i64::try_from(length.saturating_sub(1)).unwrap() * stride;
        let reaches: Vec<i64> =
            shape.iter().zip(&strides).map(|(length, stride)| reach(length, stride)).collect();
        let low: i64 = reaches.iter().filter(|reach| **reach < 0).sum();
        let high: i64 = reaches.iter().filter(|reach| **reach > 0).sum();
        let offset = slack + low.unsigned_abs();
        let elements = offset + high.unsigned_abs() + 1 + slack;
        let width = element.bytes();
        let mut random = seed | 1;
        let bytes = before + elements * width + behind;
        let bytes = (0..bytes).map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random.to_be_bytes()[0]
        });
        Case {
            bytes: bytes.collect(),
            around: (before, behind),
            big_endian,
            cast: CASTABLE.get(cast).and_then(|dtype| Cast::new(element, *dtype)),
            tensor: tensor(element, shape, strides, offset, conjugate, negative),
        }
    })
}

fn tensor(
    element: Element,
    shape: Vec<u64>,
    strides: Vec<i64>,
    offset: u64,
    conjugate: bool,
    negative: bool,
) -> FoundTensor {
    FoundTensor { name: "t".into(), element, shape, strides, offset, storage: 0, conjugate, negative }
}

fn plain(element: Element, shape: &[u64], strides: &[i64], offset: u64) -> FoundTensor {
    tensor(element, shape.to_vec(), strides.to_vec(), offset, false, false)
}

/// The whole tensor, and the largest piece.
fn gathered(case: &Case, placed: &Placed, budget: usize) -> (Vec<u8>, usize) {
    let (mut out, mut largest) = (Vec::new(), 0);
    let gather = Gather::new(&case.tensor, placed, case.cast);
    let done = gather.pieces(budget, |place, piece| {
        assert_eq!(place, out.len() as u64, "pieces follow each other");
        out.extend_from_slice(piece);
        largest = largest.max(piece.len());
        Ok::<(), tensafe_io::Error>(())
    });
    done.unwrap();
    (out, largest)
}

const WINDOW: usize = 1 << 20;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gathers_what_a_naive_reader_reads(case in case(), budget in prop_oneof![1usize..64, 64usize..4096]) {
        let needed = case.naive();
        for budget in [1, budget, 1 << 20] {
            let (source, placed) = case.storage();
            let (found, largest) = gathered(&case, &placed, budget);
            prop_assert_eq!(&found, &needed, "budget {}", budget);
            let width = usize::try_from(case.tensor.element.bytes()).unwrap();
            // A cast can make at most four bytes of one.
            prop_assert!(largest <= budget.max(width) * 4);
            prop_assert!(source.largest.load(Ordering::Relaxed) <= WINDOW.max(budget));
        }
    }

    #[test]
    fn a_run_of_the_source_is_what_pieces_give(case in case()) {
        let (_, placed) = case.storage();
        if let Some(run) = Gather::new(&case.tensor, &placed, case.cast).run() {
            let run = usize::try_from(run.start).unwrap()..usize::try_from(run.end).unwrap();
            prop_assert_eq!(&case.bytes[run], &case.naive()[..]);
        }
    }
}

fn large(tensor: FoundTensor, bytes: usize) -> Case {
    let bytes = (0..bytes).map(|place| u8::try_from(place % 251).unwrap()).collect();
    Case { tensor, bytes, around: (0, 0), big_endian: false, cast: None }
}

/// Gathers, and checks that the source is read at most `times` as often as the tensor is large, in
/// requests that memory holds.
fn check_reads(case: &Case, budget: usize, times: u64) {
    let (source, placed) = case.storage();
    let (found, largest) = gathered(case, &placed, budget);
    assert!(found == case.naive());
    assert!(largest <= budget);
    assert!(source.largest.load(Ordering::Relaxed) <= WINDOW.max(budget));
    let total = source.total.load(Ordering::Relaxed);
    assert!(total <= times * found.len() as u64, "{total} bytes were read for {}", found.len());
}

#[test]
fn a_transposed_matrix_is_read_once_for_each_piece() {
    let case = large(plain(Element::F32, &[1024, 1024], &[1, 1024], 0), 4 << 20);
    check_reads(&case, 8 << 20, 2);
    check_reads(&case, 1 << 20, 8);
}

#[test]
fn a_tensor_that_is_walked_backwards_is_not_read_anew_for_each_element() {
    let last = (1 << 18) - 1;
    check_reads(&large(plain(Element::F32, &[1 << 18], &[-1], last), 1 << 20), 8 << 20, 2);
    check_reads(&large(plain(Element::F32, &[512, 512], &[-1, -512], last), 1 << 20), 1 << 18, 8);
}

#[test]
fn what_is_expanded_is_read_from_memory() {
    let case = large(plain(Element::F32, &[1 << 10, 1 << 8], &[0, 1], 0), 1 << 10);
    check_reads(&case, 1 << 16, 1);
}

#[test]
fn memory_stays_bounded_where_rows_are_long() {
    let case = large(plain(Element::C128, &[3, 3 << 16], &[4 << 16, 1], 0), 12 << 20);
    check_reads(&case, 1 << 20, 1);
    check_reads(&case, 8 << 20, 1);
}

#[test]
fn what_lies_far_apart_is_read_alone() {
    let case = large(plain(Element::F32, &[16, 4], &[1 << 15, 1], 0), 2 << 20);
    check_reads(&case, 1 << 20, 1);
}

#[test]
fn an_error_of_the_source_or_of_the_sink_ends_the_walk() {
    let mut case = large(plain(Element::F32, &[4, 4], &[1, 4], 0), 64);
    let (_, placed) = case.storage();
    let mut pieces = 0;
    let stopped = Gather::new(&case.tensor, &placed, None).pieces(16, |_, _| {
        pieces += 1;
        Err(crate::Error::cancelled())
    });
    assert_eq!((stopped.unwrap_err().kind(), pieces), (ErrorKind::Cancelled, 1));
    case.bytes.truncate(60);
    let (source, _) = case.storage();
    let placed = Placed { source, ..placed };
    let short = Gather::new(&case.tensor, &placed, None).pieces(16, |_, _| Ok::<(), tensafe_io::Error>(()));
    assert_eq!(short.unwrap_err().kind(), ErrorKind::Io);
}

/// The first half is read slowly, until somebody met the second, which cannot be read.
#[derive(Debug, Default)]
struct Halves {
    slow: AtomicBool,
    failed: AtomicBool,
}

const HALF: u64 = 4 << 20;

impl Source for Halves {
    fn len(&self) -> u64 {
        2 * HALF
    }

    fn read_at(&self, offset: u64, _: &mut [u8]) -> Result<(), tensafe_io::Error> {
        let start = Instant::now();
        let (mine, other) =
            if offset < HALF { (&self.slow, &self.failed) } else { (&self.failed, &self.slow) };
        if offset < HALF {
            mine.store(true, Ordering::SeqCst);
        }
        while !other.load(Ordering::SeqCst) && start.elapsed() < Duration::from_millis(200) {
            std::thread::yield_now();
        }
        if offset < HALF {
            // Time for the refusal to be noted by its thread.
            std::thread::sleep(Duration::from_millis(2));
            return Ok(());
        }
        mine.store(true, Ordering::SeqCst);
        Err(tensafe_io::Error::short(None, offset, 0, 1))
    }

    fn identity(&self) -> Result<Option<Identity>, tensafe_io::Error> {
        Ok(None)
    }

    fn info(&self) -> SourceInfo {
        SourceInfo::new(Latency::Memory)
    }

    fn path(&self) -> Option<&Path> {
        None
    }
}

#[test]
fn the_thread_that_failed_is_heard_and_not_the_one_that_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..8 {
        let source: Arc<dyn Source> = Arc::new(Halves::default());
        let side = 1 << 10;
        let strided = |name: &str| FoundTensor {
            name: name.into(),
            ..plain(Element::F32, &[side, side], &[1, 1 << 10], 0)
        };
        let placed =
            |start| Placed { source: Arc::clone(&source), range: start..start + HALF, big_endian: false };
        let mut pickled = Pickled::default();
        pickled.tensors = vec![strided("slow"), FoundTensor { storage: 1, ..strided("failing") }];
        pickled.storages = vec![placed(0), placed(HALF)];
        let options = ConvertOptions { dtype: Some(Dtype::F16), ..ConvertOptions::default() };
        let plan = Conversion::plan(pickled, &directory.path().join("out.safetensors"), &options);
        let written = plan.unwrap().write(&mut |_| ControlFlow::Continue(()));
        assert_eq!(written.unwrap_err().kind(), ErrorKind::Io, "round {round}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
