//! A file that is in memory as a whole: its header and its bytes.

use core::ops::Range;

use crate::{Dtype, Error, Header, Index, ParseOptions, Region, TensorInfo};

/// A parsed file over borrowed bytes. Tensors are slices of those bytes: nothing is copied.
#[derive(Clone, Debug)]
pub struct SafeTensors<'b> {
    header: Header,
    bytes: &'b [u8],
}

/// One tensor of a file in memory.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    info: TensorInfo<'a>,
    data: &'a [u8],
}

impl<'b> SafeTensors<'b> {
    /// Parses the bytes of a whole file, strictly.
    ///
    /// # Errors
    /// As [`Header::parse`].
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Error> {
        Self::parse_with(bytes, &ParseOptions::default())
    }

    /// Parses the bytes of a whole file.
    ///
    /// # Errors
    /// As [`Header::parse`].
    pub fn parse_with(bytes: &'b [u8], options: &ParseOptions) -> Result<Self, Error> {
        let header = Header::parse(bytes, bytes.len() as u64, options)?;
        Ok(Self { header, bytes })
    }

    /// What the file says of itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, Error> {
        self.header.tensor(name).map(|info| self.view(info))
    }

    /// The tensors in the order of their bytes in the file.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorView<'_>> {
        self.header.tensors().map(|info| self.view(info))
    }

    fn view<'a>(&'a self, info: TensorInfo<'a>) -> TensorView<'a> {
        let range = self.header.file_range(&info);
        TensorView { info, data: within(self.bytes, &range) }
    }
}

impl<'a> TensorView<'a> {
    /// Name, dtype and shape.
    #[must_use]
    pub fn info(&self) -> &TensorInfo<'a> {
        &self.info
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.info.name()
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.info.dtype()
    }

    /// The shape, row-major, in elements.
    #[must_use]
    pub fn shape(&self) -> &'a [u64] {
        self.info.shape()
    }

    /// The tensor's bytes: elements in row-major order, little-endian. Not aligned to anything.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// A part of the tensor, chosen as numpy chooses, and the runs of bytes that hold it.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) as [`Region::new`].
    ///
    /// # Cost
    /// None but of the order of the number of dimensions; the runs are slices of the tensor's bytes.
    pub fn slice(
        &self,
        index: &[Index],
    ) -> Result<(Region, impl Iterator<Item = &'a [u8]> + use<'a>), Error> {
        let region = Region::new(self.dtype(), self.shape(), index)?;
        let data = self.data;
        let runs = region.runs(0).map(move |run| within(data, &run));
        Ok((region, runs))
    }
}

/// The part of `bytes` that a checked header or region names.
fn within<'a>(bytes: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let range = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
    range.and_then(|(start, end)| bytes.get(start..end)).expect("a range of the header lies within the file")
}
