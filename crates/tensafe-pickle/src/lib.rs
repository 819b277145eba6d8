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
//! # What this crate does not do
//! It does not say what objects mean, judges nothing as harmless, reads no files, and knows no
//! tensors.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod decode;
mod error;
mod limits;
mod literal;
mod machine;
mod names;
mod opcode;
mod value;

pub use decode::{Argument, Decoder, Instruction};
pub use error::{Error, ErrorKind};
pub use limits::Limits;
pub use machine::{Pickle, SymbolUse, evaluate};
pub use names::python3_name;
pub use opcode::{Form, Opcode};
pub use value::{Id, Made, Object, Symbol, Value};
