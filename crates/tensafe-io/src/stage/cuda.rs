//! Copies by the runtime of CUDA or of ROCm, which is the one that the process has loaded already: none
//! is loaded, and nothing is linked. No GPU has run this code yet; tests run it over a runtime of their
//! own.
//!
//! Each slab is registered memory with a stream and an event of its own, and is kept for the next load:
//! registering takes longer than a copy.
#![allow(unsafe_code, reason = "functions of a C library, found by name")]

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fmt,
    mem::ManuallyDrop,
    ops::Range,
    path::Path,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL};

use super::{Slab, Stager};
use crate::{Error, arena::Arena, source::checked_range};

/// The runtimes, with the prefix of their functions.
const RUNTIMES: [(&str, &str); 5] = [
    ("libcudart.so.12", "cuda"),
    ("libcudart.so.13", "cuda"),
    ("libcudart.so.11.0", "cuda"),
    ("libamdhip64.so.6", "hip"),
    ("libamdhip64.so.7", "hip"),
];

// Numbers of the two interfaces, which have them in common.
const REGISTER_PORTABLE: c_uint = 1;
const STREAM_NON_BLOCKING: c_uint = 1;
const EVENT_DISABLE_TIMING: c_uint = 2;
const HOST_TO_DEVICE: c_int = 1;
const NOT_READY: c_int = 600;

/// Slabs that are kept for the next load, at most.
const MOST_KEPT: usize = 16;

/// The stagers of the process, by device.
static STAGERS: Mutex<BTreeMap<u32, CudaStager>> = Mutex::new(BTreeMap::new());

type Handle = *mut c_void;

/// The stager for a device of CUDA or of ROCm. Cloning costs reference counts.
#[derive(Clone, Debug)]
pub struct CudaStager {
    runtime: Arc<Runtime>,
    device: c_int,
    kept: Arc<Mutex<Vec<Pinned>>>,
}

/// The functions of a runtime, which stays loaded as long as they may be called.
struct Runtime {
    prefix: &'static str,
    set_device: unsafe extern "C" fn(c_int) -> c_int,
    host_register: unsafe extern "C" fn(*mut c_void, usize, c_uint) -> c_int,
    host_unregister: unsafe extern "C" fn(*mut c_void) -> c_int,
    memcpy_async: unsafe extern "C" fn(*mut c_void, *const c_void, usize, c_int, Handle) -> c_int,
    stream_create: unsafe extern "C" fn(*mut Handle, c_uint) -> c_int,
    stream_destroy: unsafe extern "C" fn(Handle) -> c_int,
    event_create: unsafe extern "C" fn(*mut Handle, c_uint) -> c_int,
    event_destroy: unsafe extern "C" fn(Handle) -> c_int,
    event_record: unsafe extern "C" fn(Handle, Handle) -> c_int,
    event_synchronize: unsafe extern "C" fn(Handle) -> c_int,
    event_query: unsafe extern "C" fn(Handle) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    _library: Library,
}

impl CudaStager {
    /// The stager for a device, by its number in the runtime: the same for every caller.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where this process has loaded no runtime, or one
    /// that lacks a function.
    pub fn of_device(device: u32) -> Result<Self, Error> {
        let mut stagers = locked(&STAGERS);
        if let Some(stager) = stagers.get(&device) {
            return Ok(stager.clone());
        }
        let stager = Self::new(Runtime::loaded()?, device)?;
        stagers.insert(device, stager.clone());
        Ok(stager)
    }

    /// The stager for a device, by the runtime at `path`, which is loaded. `prefix` is that of its
    /// functions: `cuda` or `hip`.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) as [`of_device`](Self::of_device).
    ///
    /// # Safety
    /// - Loading the library, and unloading it, is sound.
    /// - Its functions are those of the runtime of this prefix.
    pub unsafe fn of_library(path: &Path, prefix: &'static str, device: u32) -> Result<Self, Error> {
        // SAFETY: the caller promises that loading is sound.
        let library = unsafe { Library::open(Some(path), RTLD_LAZY | RTLD_LOCAL) };
        let library = library.map_err(|_| Error::no_runtime(&[&path.to_string_lossy()]))?;
        // SAFETY: the caller promises that the functions are those of this prefix.
        let runtime = unsafe { Runtime::of_library(library, prefix) };
        Self::new(runtime?, device)
    }

    fn new(runtime: Runtime, device: u32) -> Result<Self, Error> {
        let device = c_int::try_from(device).map_err(|_| Error::device("a device", -1, "no such number"))?;
        Ok(Self { runtime: Arc::new(runtime), device, kept: Arc::default() })
    }
}

impl Stager for CudaStager {
    fn slab(&self, len: usize) -> Result<Box<dyn Slab>, Error> {
        // SAFETY: takes a number; what it changes is this thread's, a worker's.
        let code = unsafe { (self.runtime.set_device)(self.device) };
        self.runtime.check("SetDevice", code)?;
        let found = {
            let mut kept = locked(&self.kept);
            let place = kept.iter().position(|pinned| pinned.len >= len);
            place.map(|place| kept.swap_remove(place))
        };
        let pinned = match found {
            Some(pinned) => pinned,
            None => Pinned::new(&self.runtime, len)?,
        };
        Ok(Box::new(CudaSlab { pinned: Some(pinned), state: State::Idle, home: Arc::clone(&self.kept) }))
    }
}

impl Runtime {
    /// The one that is loaded.
    fn loaded() -> Result<Self, Error> {
        for (name, prefix) in RUNTIMES {
            // SAFETY: with this flag nothing is loaded and nothing runs: a library that is there already
            // is counted once more.
            let library = unsafe { Library::open(Some(name), RTLD_LAZY | RTLD_LOCAL | libc::RTLD_NOLOAD) };
            if let Ok(library) = library {
                // SAFETY: a library of this name is the runtime of this prefix, by whoever loaded it.
                return unsafe { Self::of_library(library, prefix) };
            }
        }
        Err(Error::no_runtime(&RUNTIMES.map(|(name, _)| name)))
    }

    /// # Safety
    /// The functions of the library that begin with `prefix` are those of the runtime's interface.
    unsafe fn of_library(library: Library, prefix: &'static str) -> Result<Self, Error> {
        macro_rules! function {
            ($name:literal) => {{
                let name = format!("{prefix}{}", $name);
                // SAFETY: the caller promises the interface, which has a function of this type there.
                let found = unsafe { library.get(name.as_str()) };
                *found.map_err(|_| Error::no_symbol(&name))?
            }};
        }
        Ok(Self {
            prefix,
            set_device: function!("SetDevice"),
            host_register: function!("HostRegister"),
            host_unregister: function!("HostUnregister"),
            memcpy_async: function!("MemcpyAsync"),
            stream_create: function!("StreamCreateWithFlags"),
            stream_destroy: function!("StreamDestroy"),
            event_create: function!("EventCreateWithFlags"),
            event_destroy: function!("EventDestroy"),
            event_record: function!("EventRecord"),
            event_synchronize: function!("EventSynchronize"),
            event_query: function!("EventQuery"),
            error_string: function!("GetErrorString"),
            _library: library,
        })
    }

    fn check(&self, function: &str, code: c_int) -> Result<(), Error> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: takes any number.
        let text = unsafe { (self.error_string)(code) };
        let text = if text.is_null() {
            "no text".into()
        } else {
            // SAFETY: the interface has a static string that ends in NUL there.
            unsafe { CStr::from_ptr(text) }.to_string_lossy()
        };
        Err(Error::device(&format!("{}{function}", self.prefix), code, &text))
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Runtime({})", self.prefix)
    }
}

/// Registered memory, with a stream and an event.
#[derive(Debug)]
struct Pinned {
    runtime: Arc<Runtime>,
    memory: Arena,
    len: usize,
    registered: bool,
    stream: Handle,
    event: Handle,
}

// SAFETY: streams and events may be used from any thread, and are used by one at a time.
unsafe impl Send for Pinned {}

impl Pinned {
    fn new(runtime: &Arc<Runtime>, len: usize) -> Result<Self, Error> {
        let mut memory = Arena::pages(len).map_err(|e| Error::memory(len as u64, e))?;
        let bytes = memory.bytes_mut();
        let (start, len) = (bytes.as_mut_ptr().cast::<c_void>(), bytes.len());
        let (stream, event) = (ptr::null_mut(), ptr::null_mut());
        let mut pinned = Self { runtime: Arc::clone(runtime), memory, len, registered: false, stream, event };
        // SAFETY: memory of ours, unregistered before it is given back.
        let code = unsafe { (runtime.host_register)(start, len, REGISTER_PORTABLE) };
        runtime.check("HostRegister", code)?;
        pinned.registered = true;
        // SAFETY: a place for a handle.
        let code = unsafe { (runtime.stream_create)(&raw mut pinned.stream, STREAM_NON_BLOCKING) };
        runtime.check("StreamCreateWithFlags", code)?;
        // SAFETY: a place for a handle.
        let code = unsafe { (runtime.event_create)(&raw mut pinned.event, EVENT_DISABLE_TIMING) };
        runtime.check("EventCreateWithFlags", code)?;
        Ok(pinned)
    }
}

impl Drop for Pinned {
    // What the runtime says of its handles' end helps nobody.
    fn drop(&mut self) {
        if !self.event.is_null() {
            // SAFETY: an event of this runtime, which nobody uses any more.
            unsafe { (self.runtime.event_destroy)(self.event) };
        }
        if !self.stream.is_null() {
            // SAFETY: a stream of this runtime, which nobody uses any more.
            unsafe { (self.runtime.stream_destroy)(self.stream) };
        }
        if self.registered {
            let start = self.memory.bytes_mut().as_mut_ptr().cast();
            // SAFETY: the start of memory that was registered; its copies are done.
            unsafe { (self.runtime.host_unregister)(start) };
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Copies were started after the last event.
    Copying,
    Recorded,
}

#[derive(Debug)]
struct CudaSlab {
    /// There until it is dropped.
    pinned: Option<Pinned>,
    state: State,
    home: Arc<Mutex<Vec<Pinned>>>,
}

impl CudaSlab {
    fn pinned(&self) -> Result<&Pinned, Error> {
        self.pinned.as_ref().ok_or_else(Error::cancelled)
    }
}

impl Slab for CudaSlab {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.pinned.as_mut().map(|pinned| pinned.memory.bytes_mut()).unwrap_or_default()
    }

    unsafe fn copy(&mut self, range: Range<usize>, to: *mut u8) -> Result<(), Error> {
        let start = self.bytes_mut().as_mut_ptr();
        let pinned = self.pinned()?;
        let range = checked_range(&(range.start as u64..range.end as u64), pinned.len as u64)?;
        let (runtime, from) = (&pinned.runtime, start.wrapping_add(range.start));
        // SAFETY: the bytes are within the slab, which is registered and not touched until the copy is
        // done; the caller promises that `to` is the device's for as many bytes.
        let code = unsafe {
            (runtime.memcpy_async)(to.cast(), from.cast(), range.len(), HOST_TO_DEVICE, pinned.stream)
        };
        // A call that failed may tell of an earlier one: that nothing was started is not known.
        let checked = runtime.check("MemcpyAsync", code);
        self.state = State::Copying;
        checked
    }

    fn record(&mut self) -> Result<(), Error> {
        let pinned = self.pinned()?;
        // SAFETY: an event and a stream of this runtime.
        let code = unsafe { (pinned.runtime.event_record)(pinned.event, pinned.stream) };
        pinned.runtime.check("EventRecord", code)?;
        self.state = State::Recorded;
        Ok(())
    }

    fn is_done(&mut self) -> Result<bool, Error> {
        if self.state != State::Recorded {
            return Ok(self.state == State::Idle);
        }
        let pinned = self.pinned()?;
        // SAFETY: an event of this runtime.
        let code = unsafe { (pinned.runtime.event_query)(pinned.event) };
        if code == NOT_READY {
            return Ok(false);
        }
        pinned.runtime.check("EventQuery", code)?;
        self.state = State::Idle;
        Ok(true)
    }

    fn wait(&mut self) -> Result<(), Error> {
        if self.state == State::Copying {
            self.record()?;
        }
        if self.state == State::Recorded {
            let pinned = self.pinned()?;
            // SAFETY: an event of this runtime.
            let code = unsafe { (pinned.runtime.event_synchronize)(pinned.event) };
            pinned.runtime.check("EventSynchronize", code)?;
            self.state = State::Idle;
        }
        Ok(())
    }
}

impl Drop for CudaSlab {
    fn drop(&mut self) {
        let done = self.wait();
        let Some(pinned) = self.pinned.take() else { return };
        if done.is_err() {
            // The device may still read it: it is never given back.
            let _kept = ManuallyDrop::new(pinned);
            return;
        }
        let mut kept = locked(&self.home);
        if kept.len() < MOST_KEPT {
            kept.push(pinned);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::CudaStager;
    use crate::ErrorKind;

    #[test]
    fn a_process_without_a_runtime_is_told_so() {
        let error = CudaStager::of_device(0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(
            error.to_string(),
            "no device runtime is loaded in this process: looked for libcudart.so.12, libcudart.so.13, \
             libcudart.so.11.0, libamdhip64.so.6, libamdhip64.so.7"
        );
    }
}
