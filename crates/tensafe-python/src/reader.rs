//! A Python file object as a source of bytes.

use std::{
    fmt, io,
    path::Path,
    sync::{Mutex, PoisonError},
};

use pyo3::prelude::*;
use tensafe::{FileError, Identity, Latency, Source, SourceInfo};

use crate::buffer::Held;

/// An object with `seek` and `read`. It has one cursor, so that one request is served at a time.
pub(crate) struct Reader {
    object: Mutex<Py<PyAny>>,
    len: u64,
}

impl Reader {
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let len = object.call_method1("seek", (0, 2))?;
        // Some objects return nothing from `seek`.
        let len = if len.is_none() { object.call_method0("tell")? } else { len };
        Ok(Self { len: len.extract()?, object: Mutex::new(object.clone().unbind()) })
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({} bytes)", self.len)
    }
}

impl Source for Reader {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), FileError> {
        let failed = |e: PyErr| FileError::from_source("read the file object", io::Error::other(e));
        // Callers have released the interpreter: whoever holds the lock can always attach to it.
        let object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        Python::attach(|py| {
            let object = object.bind(py);
            object.call_method1("seek", (offset,)).map_err(failed)?;
            let mut done = 0;
            while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
                let read = object.call_method1("read", (rest.len().min(8 << 20),)).map_err(failed)?;
                // Bytes, or whatever else has a buffer: it is held until it is copied.
                let held = Held::of(&read).map_err(failed)?;
                let read = held.as_ref();
                let Some(place) = rest.get_mut(..read.len()).filter(|_| !read.is_empty()) else {
                    let at = offset.saturating_add(done as u64);
                    return Err(FileError::short(None, at, 0, rest.len() as u64));
                };
                place.copy_from_slice(read);
                done += read.len();
            }
            Ok(())
        })
    }

    fn identity(&self) -> Result<Option<Identity>, FileError> {
        Ok(None)
    }

    fn info(&self) -> SourceInfo {
        SourceInfo::new(Latency::Network)
    }

    fn path(&self) -> Option<&Path> {
        None
    }
}
