//! Sparse tensors that are written as dense ones, and those whose parts contradict each other.

use tensafe_model::{ConvertOptions, ErrorKind, PickledOptions};

use crate::build::{
    bytes_of, counting, dict, floats, loaded, open_with, refusal, storage, torch, tuple, vector, walk,
};

fn sparse(layout: &str, parts: &[&str], shape: &[i64]) -> String {
    let (parts, shape) = (parts.concat(), tuple(shape));
    format!("ctorch._utils\n_rebuild_sparse_tensor\n(ctorch\n{layout}\n({parts}{shape}ttR")
}

fn dense() -> PickledOptions {
    PickledOptions::default().with_dense(true)
}

/// The values of the one tensor, which is of floats.
fn values(value: &str, storages: &[(&str, &[u8])]) -> (Vec<u64>, Vec<f32>) {
    let mut options = ConvertOptions::default();
    options.read = dense();
    let mut all = loaded(torch(dict(&[("a", value)]), storages), &options).unwrap();
    let (tensor, bytes) = all.pop().unwrap();
    (tensor.shape, bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn longs(numbers: &[i64]) -> Vec<u8> {
    bytes_of(numbers, |number| number.to_le_bytes())
}

fn matrix(key: &str, rows: i64, columns: i64) -> String {
    walk(&storage("LongStorage", key, (rows * columns).unsigned_abs()), 0, &[rows, columns], &[columns, 1])
}

#[test]
fn values_go_to_their_places() {
    let coo = sparse("sparse_coo", &[&matrix("i", 2, 3), &floats("v", 3)], &[2, 3]);
    let found = values(&coo, &[("i", &longs(&[0, 1, 1, 2, 0, 2])), ("v", &counting(1, 3))]);
    assert_eq!(found, (vec![2, 3], vec![0., 0., 1., 2., 0., 3.]));
    let parts = [("c", &longs(&[0, 1, 3])[..]), ("p", &longs(&[2, 0, 2])), ("v", &counting(1, 3))];
    let bounds = |count| vector("LongStorage", "c", count);
    let plain = vector("LongStorage", "p", 3);
    let csr = sparse("sparse_csr", &[&bounds(3), &plain, &floats("v", 3)], &[2, 3]);
    assert_eq!(values(&csr, &parts), (vec![2, 3], vec![0., 0., 1., 2., 0., 3.]));
    // The same parts say columns.
    let csc = sparse("sparse_csc", &[&bounds(3), &plain, &floats("v", 3)], &[3, 2]);
    assert_eq!(values(&csc, &parts), (vec![3, 2], vec![0., 2., 0., 0., 1., 3.]));
    // Indices of 32 bits.
    let ints = |numbers: &[i32]| bytes_of(numbers, |number| number.to_le_bytes());
    let csr = sparse(
        "sparse_csr",
        &[&vector("IntStorage", "c", 2), &vector("IntStorage", "p", 1), &floats("v", 1)],
        &[1, 2],
    );
    let parts = [("c", &ints(&[0, 1])[..]), ("p", &ints(&[1])), ("v", &counting(7, 1))];
    assert_eq!(values(&csr, &parts), (vec![1, 2], vec![0., 7.]));
}

#[test]
fn values_of_a_hybrid_are_blocks() {
    let blocks = walk(&storage("FloatStorage", "v", 4), 0, &[2, 2], &[2, 1]);
    let coo = sparse("sparse_coo", &[&matrix("i", 1, 2), &blocks], &[3, 2]);
    let found = values(&coo, &[("i", &longs(&[2, 0])), ("v", &counting(1, 4))]);
    assert_eq!(found, (vec![3, 2], vec![3., 4., 0., 0., 1., 2.]));
}

#[test]
fn parts_may_be_strided() {
    // Indices and values transposed, with gaps and backwards.
    let indices = walk(&storage("LongStorage", "i", 4), 0, &[2, 2], &[1, 2]);
    let backwards = walk(&storage("FloatStorage", "v", 4), 3, &[2], &[-2]);
    let coo = sparse("sparse_coo", &[&indices, &backwards], &[2, 2]);
    let found = values(&coo, &[("i", &longs(&[0, 1, 1, 0])), ("v", &counting(1, 4))]);
    assert_eq!(found, (vec![2, 2], vec![0., 4., 2., 0.]));
}

#[test]
fn a_sparse_tensor_without_values_is_all_zeros() {
    let empty = |shape: &[i64]| walk(&storage("LongStorage", "i", 0), 0, shape, &[1, 1]);
    let coo = sparse("sparse_coo", &[&empty(&[2, 0]), &floats("v", 0)], &[2, 2]);
    assert_eq!(values(&coo, &[("i", &[]), ("v", &[])]), (vec![2, 2], vec![0.; 4]));
    let coo = sparse("sparse_coo", &[&empty(&[2, 0]), &floats("v", 0)], &[0, 2]);
    assert_eq!(values(&coo, &[("i", &[]), ("v", &[])]), (vec![0, 2], vec![]));
    // No sparse dimension: one value is all there can be.
    let coo = sparse("sparse_coo", &[&empty(&[0, 1]), &floats("v", 1)], &[]);
    assert_eq!(values(&coo, &[("i", &[]), ("v", &counting(5, 1))]), (vec![], vec![5.]));
}

fn flaw(value: &str, storages: &[(&str, &[u8])]) -> String {
    let (kind, text) = refusal(open_with(torch(dict(&[("a", value)]), storages), &dense()));
    assert_eq!(kind, ErrorKind::Format);
    text.strip_prefix("`a`: a sparse tensor: ").unwrap_or(&text).to_owned()
}

#[test]
fn values_that_torch_would_add_are_refused() {
    let twice = "one place twice: torch would add them, `coalesce` it first";
    let coo = sparse("sparse_coo", &[&matrix("i", 1, 2), &floats("v", 2)], &[3]);
    assert_eq!(flaw(&coo, &[("i", &longs(&[1, 1])), ("v", &counting(1, 2))]), twice);
    // Without a sparse dimension all values have one place.
    let none = walk(&storage("LongStorage", "i", 0), 0, &[0, 3], &[3, 1]);
    let coo = sparse("sparse_coo", &[&none, &floats("v", 3)], &[]);
    assert_eq!(flaw(&coo, &[("i", &[]), ("v", &counting(1, 3))]), twice);
}

#[test]
fn indices_that_lie_are_refused() {
    let coo = sparse("sparse_coo", &[&matrix("i", 1, 2), &floats("v", 2)], &[3]);
    let with = |numbers: &[i64]| flaw(&coo, &[("i", &longs(numbers)), ("v", &counting(1, 2))]);
    assert_eq!(with(&[0, 3]), "an index beyond its size");
    assert_eq!(with(&[0, -1]), "its indices are no integers from 0 on");
    let coo = sparse(
        "sparse_coo",
        &[&walk(&storage("FloatStorage", "v", 2), 0, &[1, 2], &[2, 1]), &floats("v", 2)],
        &[3],
    );
    assert_eq!(flaw(&coo, &[("v", &counting(1, 2))]), "its indices are no integers from 0 on");
    let coo = sparse("sparse_coo", &[&vector("LongStorage", "i", 2), &floats("v", 2)], &[3]);
    assert_eq!(
        flaw(&coo, &[("i", &longs(&[0, 1])), ("v", &counting(1, 2))]),
        "its indices have not two dimensions"
    );
    let unfit = "indices, values and size do not fit each other";
    let coo = sparse("sparse_coo", &[&matrix("i", 1, 2), &floats("v", 3)], &[3]);
    assert_eq!(flaw(&coo, &[("i", &longs(&[0, 1])), ("v", &counting(1, 3))]), unfit);
    let coo = sparse("sparse_coo", &[&matrix("i", 2, 1), &floats("v", 1)], &[3]);
    assert_eq!(flaw(&coo, &[("i", &longs(&[0, 1])), ("v", &counting(1, 1))]), unfit);
}

#[test]
fn bounds_that_lie_are_refused() {
    let csr = |bounds: &[i64], plain: &[i64], shape: &[i64]| {
        let (of_bounds, of_plain) = (bounds.len() as i64, plain.len() as i64);
        let parts =
            [vector("LongStorage", "c", of_bounds), vector("LongStorage", "p", of_plain), floats("v", 2)];
        let value = sparse("sparse_csr", &[&parts[0], &parts[1], &parts[2]], shape);
        flaw(&value, &[("c", &longs(bounds)), ("p", &longs(plain)), ("v", &counting(1, 2))])
    };
    let unfit = "indices, values and size do not fit each other";
    assert_eq!(csr(&[0, 2], &[0, 1], &[2, 2]), unfit);
    assert_eq!(csr(&[0, 1, 2], &[0], &[2, 2]), unfit);
    let bounds = "its bounds do not ascend from 0 to the number of values";
    assert_eq!(csr(&[1, 1, 2], &[0, 1], &[2, 2]), bounds);
    assert_eq!(csr(&[0, 1, 1], &[0, 1], &[2, 2]), bounds);
    assert_eq!(csr(&[0, 3, 2], &[0, 1], &[2, 2]), bounds);
    assert_eq!(csr(&[0, 1, 2], &[0, 2], &[2, 2]), "an index beyond its size");
    assert_eq!(
        csr(&[0, 2, 2], &[1, 1], &[2, 2]),
        "one place twice: torch would add them, `coalesce` it first"
    );
    assert_eq!(
        csr(&[0, 2], &[0, 1], &[1, 1, 2]),
        "its layout is of batches or blocks, which is not made dense"
    );
}

#[test]
fn blocks_and_parts_that_are_no_tensors_are_refused() {
    let parts = ["N", "N"];
    assert_eq!(flaw(&sparse("sparse_coo", &parts, &[2]), &[]), "a part of it is no tensor");
    let vectors = [vector("LongStorage", "c", 2), vector("LongStorage", "p", 2), floats("v", 2)];
    let bsr = sparse("sparse_bsr", &[&vectors[0], &vectors[1], &vectors[2]], &[1, 2]);
    let storages = [("c", &longs(&[0, 2])[..]), ("p", &longs(&[0, 1])), ("v", &counting(1, 2))];
    assert_eq!(flaw(&bsr, &storages), "its layout is of blocks, which is not made dense");
}

#[test]
fn what_would_be_huge_is_refused_before_memory_is_taken() {
    let coo = sparse("sparse_coo", &[&matrix("i", 1, 1), &floats("v", 1)], &[1 << 40]);
    let parts = [("i", &longs(&[0])[..]), ("v", &counting(1, 1))];
    assert_eq!(flaw(&coo, &parts), "more than 1 GiB when it is dense");
    let coo = sparse("sparse_coo", &[&matrix("i", 1, 1), &floats("v", 1)], &[i64::MAX]);
    assert_eq!(flaw(&coo, &parts), "more than 1 GiB when it is dense");
    // One number, repeated 2^28 times.
    let count = 1 << 28;
    let indices = walk(&storage("LongStorage", "i", 1), 0, &[1, count], &[0, 0]);
    let repeated = walk(&storage("FloatStorage", "v", 1), 0, &[count], &[0]);
    let coo = sparse("sparse_coo", &[&indices, &repeated], &[3]);
    assert_eq!(flaw(&coo, &parts), "a part of more than 1 GiB");
}

#[test]
fn counts_without_elements_take_no_memory() {
    // 2^60 values of no elements each.
    let count = 1 << 60;
    let indices = walk(&storage("LongStorage", "i", 0), 0, &[0, count], &[1, 1]);
    let nothing = walk(&storage("FloatStorage", "v", 0), 0, &[count, 0], &[1, 1]);
    let coo = sparse("sparse_coo", &[&indices, &nothing], &[0]);
    let bytes = torch(dict(&[("a", &coo)]), &[("i", &[]), ("v", &[])]);
    // Whether it is read or refused: it is answered at once.
    let _answer = open_with(bytes, &dense());
}
