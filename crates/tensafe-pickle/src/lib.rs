//! Pickles, read without being run.
//!
//! A pickle is a program for a small machine that, in Python, may import and call anything. This
//! machine cannot: a global is an inert [`Symbol`], and what would be a call is an [`Object`], a
//! record of what was asked for. [`evaluate`] goes as far as the program can be followed and returns
//! everything that was built, also where the program breaks off.
//!
//! - [`Opcode`] is the table of all opcodes of protocols 0 to 5.
//! - [`Decoder`] splits a program into [`Instruction`]s.
//! - [`Pickle`] is the result of [`evaluate`]: an arena of [`Value`]s, the symbols that were named,
//!   and how the program ended.
//!
//! ```
//! use tensafe_pickle::{Limits, Value, evaluate};
//!
//! // What `pickle.loads` would call `os.system("id")` for.
//! let pickle = evaluate(b"cos\nsystem\n(S'id'\ntR.", &Limits::default());
//! let symbol = pickle.symbol(pickle.symbols()[0].value).unwrap();
//! assert_eq!((&*symbol.module, &*symbol.name), ("os", "system"));
//! assert!(matches!(pickle.root().unwrap(), Value::Object(_)), "a record, not a result");
//! ```
//!
//! - [`Pickle::meaning`] says what a record stands for, by a closed table of what torch, numpy and
//!   joblib write.
//! - [`Stream`] is where the bytes come from; [`LegacyStream`] is the file of several pickles that
//!   torch wrote before 1.6.
//!
//! # What this crate does not do
//! It opens no files, holds no tensor's bytes, and judges nothing as harmful.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod decode;
mod element;
mod error;
mod legacy;
mod limits;
mod literal;
mod machine;
mod meaning;
mod names;
mod numbered;
mod opcode;
mod pickle;
mod stream;
mod value;

pub use decode::{Argument, Decoder, Instruction};
pub use element::Element;
pub use error::{Error, ErrorKind};
pub use legacy::{LegacyStorage, LegacyStream};
pub use limits::Limits;
pub use machine::{evaluate, evaluate_stream};
pub use meaning::{
    Array, ArrayData, Bytes, Layout, Meaning, MeaningError, Number, Quantizer, Storage, StorageAt,
    StorageView, Tensor, known_symbol,
};
pub use names::python3_name;
pub use numbered::{NumberedStorage, NumberedTensor, numbered_storages, numbered_tensors};
pub use opcode::{Form, Opcode};
pub use pickle::{Dialect, Pickle, Spellings, SymbolUse};
pub use stream::Stream;
pub use value::{Behind, Id, Made, Object, Symbol, Value};
