//! Any bytes are refused, or become a file that holds what loading them gives: the same names,
//! shapes and bytes, read back by the strict reader. Nothing else is left in the directory. What stands
//! around tensors of a file of torch knows no tensor that is not in it.
#![no_main]

use std::{collections::HashSet, ops::ControlFlow, sync::Arc};

use libfuzzer_sys::fuzz_target;
use tensafe_io::{Buffer, MemorySource, Source};
use tensafe_model::{
    Checkpoint, Conversion, ConvertOptions, OpenOptions, Pickled, PickledOptions, StructurePart, load,
};

fuzz_target!(|bytes: &[u8]| {
    // The options follow from the bytes, so that files are seeds as they are.
    let flags = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
    let read = PickledOptions::default().with_salvage(flags & 1 != 0).with_dense(flags & 2 != 0);
    let mut options = ConvertOptions::default();
    options.duplicate = flags & 4 != 0;
    options.durable = false;
    options.max_shard_bytes = (flags & 8 != 0).then_some(16);
    options.dtype = (flags & 16 != 0).then_some(tensafe_format::Dtype::BF16);
    options.read = read;
    let opened = |read: &PickledOptions| {
        let source: Arc<dyn Source> = Arc::new(MemorySource::new(Buffer::from_owner(bytes.to_vec())));
        Pickled::from_source(source, read)
    };
    if let Ok(whole) = opened(&PickledOptions::default().with_structure(true)) {
        let names: HashSet<&str> = whole.names().collect();
        for part in whole.structure().map_or(&[][..], |structure| structure.parts()) {
            if let StructurePart::Tensor(tensor) = part {
                assert!(names.contains(tensor.name.as_str()), "`{}` is no tensor of the file", tensor.name);
            }
        }
    }
    let open = || opened(&read);
    let Ok(pickled) = open() else { return };
    // Expanded tensors are larger than any file: what is more than a few MiB is not written.
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("model.safetensors");
    let Ok(conversion) = Conversion::plan(pickled, &output, &options) else { return };
    if conversion.bytes() > 4 << 20 {
        return;
    }
    let mut go_on = |_| ControlFlow::Continue(());
    let written = conversion.write(&mut go_on);
    if conversion.tensors().is_empty() {
        assert!(written.is_err());
        return;
    }
    written.expect("what was planned is written");
    let loaded =
        load(open().expect("opened before"), &options, &mut go_on).expect("what was written is loaded");
    let model =
        Checkpoint::open(directory.path(), &OpenOptions::default()).expect("what was written is read");
    let aliases = conversion.aliases();
    assert_eq!(loaded.len(), conversion.tensors().len() + aliases.len());
    for (tensor, bytes) in &loaded {
        let name = aliases.get(&tensor.name).unwrap_or(&tensor.name);
        let (file, info) = model.find(name).expect("every name");
        assert_eq!((info.dtype(), info.shape()), (tensor.dtype, &tensor.shape[..]));
        assert_eq!(&*file.tensor(name).expect("every tensor"), &**bytes);
    }
    let files = conversion.files().len() + usize::from(conversion.index().is_some());
    assert_eq!(std::fs::read_dir(directory.path()).expect("the directory").count(), files);
});
