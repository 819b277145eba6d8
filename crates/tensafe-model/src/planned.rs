//! Plans over the files of a checkpoint, by the names of its tensors.

use std::{ptr, sync::Arc};

use tensafe_io::{ExecuteOptions, Execution, Explain, Plan, Selection, TensorFile};

use crate::{Checkpoint, Error};

impl Checkpoint {
    /// Adds a part of the tensor called `name` to a plan over this checkpoint's files. Returns the
    /// entry's place in the plan.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), and as [`Plan::add`].
    pub fn add_to(&self, plan: &mut Plan, name: &str, selection: &Selection) -> Result<usize, Error> {
        let (file, info) = self.find(name)?;
        let place = self.files().iter().position(|other| ptr::eq(other, file)).unwrap_or_default();
        Ok(plan.add(place, file.header(), &info, selection)?)
    }

    /// What a plan over this checkpoint's files costs now: which bytes are read, by what means, and
    /// why.
    ///
    /// # Errors
    /// As [`Execution::start`]. Reads nothing.
    pub fn explain(&self, plan: &Plan) -> Result<Explain, Error> {
        Ok(tensafe_io::explain(plan, &self.file_refs())?)
    }

    /// As [`explain`](Self::explain), where what is read into memory of the caller goes to a device.
    ///
    /// # Errors
    /// As [`Execution::start`]. Reads nothing.
    pub fn explain_staged(&self, plan: &Plan) -> Result<Explain, Error> {
        Ok(tensafe_io::explain_staged(plan, &self.file_refs())?)
    }

    /// Carries a plan over this checkpoint's files out.
    ///
    /// # Errors
    /// As [`Execution::start`].
    ///
    /// # Cost
    /// As [`Execution::start`]. The execution goes on without the checkpoint.
    pub fn execute(&self, plan: Arc<Plan>, options: ExecuteOptions) -> Result<Execution, Error> {
        Ok(Execution::start(plan, &self.file_refs(), options)?)
    }

    fn file_refs(&self) -> Vec<&TensorFile> {
        self.files().iter().collect()
    }
}
