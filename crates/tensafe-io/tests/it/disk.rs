//! A disk in memory that does what a test says: direct reads or none, a page cache that is warm, cold
//! or unknown, and faults at a given request.

use std::{
    ops::Range,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tensafe_io::{Error, Identity, Latency, Source, SourceInfo};

/// What goes wrong, at the request of this number, counted from 0 after the header was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The device fails.
    Io,
    /// The file ends early.
    Truncated,
    /// Another file of another time is there.
    Replaced,
    /// The source has a defect of its own.
    Panic,
}

#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) bytes: Vec<u8>,
    /// Whether direct reads are refused when the first is tried.
    pub(crate) refuses_direct: bool,
    pub(crate) direct: bool,
    /// The share of each range that is in the page cache; `None` where that is not known.
    pub(crate) resident: Option<u64>,
    pub(crate) request_bytes: usize,
    pub(crate) fault: Mutex<Option<(usize, Fault)>>,
    pub(crate) requests: AtomicUsize,
    pub(crate) log: Mutex<Vec<(bool, Range<u64>)>>,
    /// What was to leave the page cache.
    pub(crate) forgotten: Mutex<Vec<Range<u64>>>,
}

impl Disk {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            refuses_direct: false,
            direct: true,
            resident: Some(0),
            request_bytes: 8 << 20,
            fault: Mutex::default(),
            requests: AtomicUsize::new(0),
            log: Mutex::default(),
            forgotten: Mutex::default(),
        }
    }

    /// Forgets the requests so far; the fault is counted from here on.
    pub(crate) fn arm(&self, fault: Option<(usize, Fault)>) {
        self.requests.store(0, Ordering::SeqCst);
        self.log.lock().unwrap().clear();
        self.forgotten.lock().unwrap().clear();
        *self.fault.lock().unwrap() = fault;
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn fails(&self, offset: u64, needed: usize) -> Result<(), Error> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        match *self.fault.lock().unwrap() {
            Some((at, Fault::Io)) if at == number => {
                let error = std::io::Error::from_raw_os_error(5);
                Err(Error::from_source("read", error))
            }
            Some((at, Fault::Truncated)) if at == number => Err(Error::short(None, offset, 0, needed as u64)),
            Some((at, Fault::Panic)) if at == number => panic!("the source has a defect"),
            _ => Ok(()),
        }
    }
}

impl Source for Disk {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.fails(offset, out.len())?;
        self.log.lock().unwrap().push((false, offset..offset + out.len() as u64));
        let start = usize::try_from(offset).unwrap();
        match self.bytes.get(start..start + out.len()) {
            Some(bytes) => out.copy_from_slice(bytes),
            None => {
                return Err(Error::short(None, offset, self.len().saturating_sub(offset), out.len() as u64));
            }
        }
        Ok(())
    }

    fn read_direct(&self, offset: u64, out: &mut [u8]) -> Result<Option<usize>, Error> {
        if self.refuses_direct {
            return Ok(None);
        }
        assert!(offset.is_multiple_of(4096) && out.len().is_multiple_of(4096), "direct reads are of pages");
        assert!(out.as_ptr().addr().is_multiple_of(4096), "into pages");
        self.fails(offset, out.len())?;
        self.log.lock().unwrap().push((true, offset..offset + out.len() as u64));
        let rest = self.bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        Ok(Some(len))
    }

    fn identity(&self) -> Result<Option<Identity>, Error> {
        let replaced =
            matches!(*self.fault.lock().unwrap(), Some((at, Fault::Replaced)) if self.requests() > at);
        Ok(Some(Identity { file: Some((1, 1)), len: self.len(), modified_ns: Some(i128::from(replaced)) }))
    }

    fn info(&self) -> SourceInfo {
        let mut info = SourceInfo::new(Latency::Local);
        (info.direct, info.request_bytes) = (self.direct, self.request_bytes);
        info
    }

    fn path(&self) -> Option<&Path> {
        None
    }

    fn resident(&self, range: Range<u64>) -> Option<u64> {
        self.resident.map(|percent| (range.end - range.start) * percent / 100)
    }

    fn forget(&self, range: Range<u64>) {
        self.forgotten.lock().unwrap().push(range);
    }
}
