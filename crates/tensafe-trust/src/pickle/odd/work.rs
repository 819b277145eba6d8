//! What reading the arguments of calls costs, and how much of it a pickle is worth.
//!
//! A value may stand in the arguments of every call, and each call has it read anew: a pickle of `n`
//! bytes can ask for `n²` steps. The steps are counted before they are taken, and beyond a number that
//! grows with the pickle none are.

use std::collections::HashMap;

use tensafe_pickle::{Id, Object, Pickle, Value};

/// Steps that any pickle is worth, and steps for each of its values. Writers share no more than empty
/// tuples and dtypes between calls, which comes to less than 10 for each value.
const LEAST_STEPS: u64 = 4 << 20;
const STEPS_FOR_EACH: u64 = 64;
/// Steps that are counted anew rather than kept.
const FEW_STEPS: u64 = 64;
/// Bytes of a text that are read in the time of one value.
const BYTES_OF_A_STEP: u64 = 64;
/// Containers within containers that readers of arguments look into: shapes in arguments in arguments.
const CONTAINERS: u32 = 3;
/// Containers of arguments whose objects are read too.
const WITH_OBJECTS: u32 = 2;
/// Objects within objects that the readers follow.
const OBJECTS: u32 = 16;

/// The steps that are left for the calls of one pickle.
#[derive(Debug)]
pub(super) struct Work<'p, 'a> {
    pickle: &'p Pickle<'a>,
    left: u64,
    /// Steps for objects that were counted, of those that took many.
    known: HashMap<Id, u64>,
}

impl<'p, 'a> Work<'p, 'a> {
    pub(super) fn new(pickle: &'p Pickle<'a>) -> Self {
        let values = pickle.values().len() as u64;
        let left = values.saturating_mul(STEPS_FOR_EACH).saturating_add(LEAST_STEPS);
        Self { pickle, left, known: HashMap::new() }
    }

    /// Takes the steps that reading an object takes; `false` where not so many are left, from then on.
    pub(super) fn spend(&mut self, id: Id, object: &Object) -> bool {
        if self.left > 0 {
            let steps = self.object(id, object, OBJECTS);
            self.left = self.left.saturating_sub(steps);
        }
        self.left > 0
    }

    fn object(&mut self, id: Id, object: &Object, deep: u32) -> u64 {
        if let Some(steps) = self.known.get(&id) {
            return *steps;
        }
        let is_outermost = deep == OBJECTS;
        let Some(deep) = deep.checked_sub(1) else { return 1 };
        let own = object.items.len().saturating_add(object.entries.len()) as u64;
        let mut steps = own.saturating_add(1);
        steps = steps.saturating_add(self.value(object.arguments, CONTAINERS, deep));
        for state in &object.states {
            steps = steps.saturating_add(self.state(*state, deep));
        }
        // Within others, what stands too deep was left out.
        if is_outermost && steps > FEW_STEPS {
            self.known.insert(id, steps);
        }
        steps
    }

    /// Steps for an argument, and what stands in it.
    fn value(&mut self, id: Id, containers: u32, deep: u32) -> u64 {
        let pickle = self.pickle;
        match pickle.value(id) {
            Some(Value::Str(text)) => of_bytes(text.len()),
            Some(Value::Bytes(bytes) | Value::ByteArray(bytes) | Value::Long(bytes)) => of_bytes(bytes.len()),
            Some(Value::Object(object)) if containers >= CONTAINERS - WITH_OBJECTS => {
                self.object(id, object, deep)
            }
            Some(value) => match containers.checked_sub(1) {
                Some(containers) => self.within(value, |work, id| work.value(id, containers, deep)),
                None => 1,
            },
            None => 1,
        }
    }

    /// Steps for a state: the parts of it, what stands in those, and the dtype of an array.
    fn state(&mut self, id: Id, deep: u32) -> u64 {
        let pickle = self.pickle;
        let Some(value) = pickle.value(id) else { return 1 };
        self.within(value, |work, id| match pickle.value(id) {
            Some(Value::Object(object)) if is_dtype(pickle, object) => work.object(id, object, deep),
            Some(value) => width(value).saturating_add(1),
            None => 1,
        })
    }

    /// Steps for all that a value holds. Counting takes as many, so it ends where too few are left.
    fn within(&mut self, value: &Value<'_>, mut of: impl FnMut(&mut Self, Id) -> u64) -> u64 {
        let mut steps = 1u64;
        let mut add = |work: &mut Self, id: &Id| {
            steps = steps.saturating_add(of(work, *id));
            steps < work.left
        };
        match value {
            Value::Tuple(items) | Value::List(items) | Value::Set(items) | Value::FrozenSet(items) => {
                _ = items.iter().all(|id| add(self, id));
            }
            Value::Dict(entries) => {
                _ = entries.iter().all(|(key, value)| add(self, key) && add(self, value));
            }
            _ => {}
        }
        steps
    }
}

/// How many values a value holds.
fn width(value: &Value<'_>) -> u64 {
    let width = match value {
        Value::Tuple(items) | Value::List(items) | Value::Set(items) | Value::FrozenSet(items) => items.len(),
        Value::Dict(entries) => entries.len().saturating_mul(2),
        _ => 0,
    };
    width as u64
}

fn of_bytes(length: usize) -> u64 {
    (length as u64 / BYTES_OF_A_STEP).saturating_add(1)
}

fn is_dtype(pickle: &Pickle<'_>, object: &Object) -> bool {
    let symbol = pickle.symbol(object.callable);
    symbol.is_some_and(|symbol| &*symbol.module == "numpy" && &*symbol.name == "dtype")
}
