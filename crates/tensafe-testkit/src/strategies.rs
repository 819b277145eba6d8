//! Generators of tensors and files for proptest.

use std::collections::BTreeMap;

use proptest::{collection, option, prelude::*};
use tensafe_format::{Dtype, Index, Layout, LayoutOptions, METADATA_NAME, Metadata, TensorSpec};

/// Any dtype.
pub fn dtypes() -> impl Strategy<Value = Dtype> {
    proptest::sample::select(Dtype::ALL)
}

/// Small shapes, zero dimensions among them, whose tensors of `dtype` are of whole bytes.
pub fn shapes(dtype: Dtype) -> impl Strategy<Value = Vec<u64>> {
    collection::vec(0u64..6, 0..4).prop_map(move |mut shape| {
        if dtype.is_sub_byte() {
            shape.push(4);
        }
        shape
    })
}

/// One tensor of any dtype, with any name that a tensor can have.
pub fn specs() -> impl Strategy<Value = TensorSpec> {
    let names = any::<String>().prop_filter("the name is reserved", |name| name != METADATA_NAME);
    (names, dtypes()).prop_flat_map(|(name, dtype)| {
        shapes(dtype).prop_map(move |shape| TensorSpec::new(name.clone(), dtype, shape))
    })
}

/// Up to seven tensors of different names.
pub fn spec_lists() -> impl Strategy<Value = Vec<TensorSpec>> {
    collection::vec(specs(), 0..8).prop_map(|specs| {
        let by_name: BTreeMap<_, _> = specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        by_name.into_values().collect()
    })
}

/// Metadata of up to three keys, or none.
pub fn metadata() -> impl Strategy<Value = Option<Metadata>> {
    option::of(collection::btree_map(any::<String>(), any::<String>(), 0..4))
}

/// A whole valid file, its data a pattern that differs from byte to byte.
///
/// # Panics
/// While generating, where a layout refuses small tensors of different names.
pub fn files() -> impl Strategy<Value = Vec<u8>> {
    (spec_lists(), metadata(), 3u32..8).prop_map(|(specs, metadata, align)| {
        let layout = Layout::new(specs, metadata.as_ref(), &LayoutOptions::with_align(1 << align))
            .expect("small tensors of different names can be laid out");
        let mut file = layout.header_bytes().to_vec();
        file.extend((layout.header_bytes().len() as u64..layout.file_bytes()).map(|at| at.to_le_bytes()[0]));
        file
    })
}

/// One item of an index into dimensions of fewer than eight elements.
pub fn indices() -> impl Strategy<Value = Index> {
    prop_oneof![
        (-8i64..8).prop_map(Index::At),
        (option::of(-9i64..9), option::of(-9i64..9), 1u64..5).prop_map(|(start, stop, step)| Index::Range {
            start,
            stop,
            step
        }),
        Just(Index::FULL),
        Just(Index::Ellipsis),
    ]
}
