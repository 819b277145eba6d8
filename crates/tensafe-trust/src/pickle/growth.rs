//! How deep values stand in each other, and how many there are for who walks over all of them.
//!
//! A value that is shared counts once for each way to it, as a program meets it that copies or prints
//! what it loaded. States of objects are not walked: attributes that lead back to their owner are usual.

use tensafe_pickle::{Id, Pickle, Value};

use crate::{
    Finding, Level, Rule,
    scan::{Place, Scan},
};

/// Deeper containers are more than any checkpoint nests, and more than Python's own recursion takes.
const MOST_DEPTH: u64 = 500;
/// Values that a program meets, and how many times as many as there are.
const MOST_SIZE: f64 = 1e7;
const MOST_GROWTH: f64 = 100.0;

pub(super) fn judge(pickle: &Pickle<'_>, place: Place<'_>, scan: &mut Scan<'_>) {
    let mut walk = Walk {
        pickle,
        seen: vec![Walked::No; pickle.values().len()],
        deepest: 0,
        largest: 1.0,
        circles: false,
    };
    for (id, _) in pickle.entries() {
        walk.from(id);
    }
    if walk.deepest > MOST_DEPTH {
        let text = format!("values stand in each other {} levels deep", walk.deepest);
        scan.add(place, Finding::new(Rule::Exhausts, text));
    }
    let values = walk.seen.len();
    if walk.largest > MOST_SIZE && walk.largest > MOST_GROWTH * values as f64 {
        let text = format!("{values} values become {:.0e} for who walks over them", walk.largest);
        scan.add(place, Finding::new(Rule::Exhausts, text));
    }
    if walk.circles {
        let finding = Finding::new(Rule::OddStream, "a value holds itself").leveled(Level::Note);
        scan.add(place, finding);
    }
}

#[derive(Clone, Copy)]
enum Walked {
    No,
    /// On the way from the root to where the walk is.
    Open,
    /// Levels below it, and values with it.
    Done {
        depth: u64,
        size: f64,
    },
}

struct Walk<'p, 'a> {
    pickle: &'p Pickle<'a>,
    seen: Vec<Walked>,
    deepest: u64,
    largest: f64,
    circles: bool,
}

impl Walk<'_, '_> {
    /// Visits a value and all below it that were not visited, without recursion.
    fn from(&mut self, root: Id) {
        if !matches!(self.at(root), Walked::No) {
            return;
        }
        let mut stack = vec![(root, 0usize)];
        while let Some((id, next)) = stack.pop() {
            let Some(value) = self.pickle.value(id) else { continue };
            if next == 0 {
                self.set(id, Walked::Open);
            }
            let Some(child) = child(value, next) else {
                self.close(id, value);
                continue;
            };
            stack.push((id, next.saturating_add(1)));
            match self.at(child) {
                Walked::No => stack.push((child, 0)),
                Walked::Open => self.circles = true,
                Walked::Done { .. } => {}
            }
        }
    }

    fn close(&mut self, id: Id, value: &Value<'_>) {
        let (mut depth, mut size) = (0u64, 1f64);
        for child in (0..).map_while(|at| child(value, at)) {
            if let Walked::Done { depth: below, size: of_child } = self.at(child) {
                depth = depth.max(below.saturating_add(1));
                size += of_child;
            }
        }
        self.deepest = self.deepest.max(depth);
        self.largest = self.largest.max(size);
        self.set(id, Walked::Done { depth, size });
    }

    fn at(&self, id: Id) -> Walked {
        self.seen.get(id.index()).copied().unwrap_or(Walked::Done { depth: 0, size: 0.0 })
    }

    fn set(&mut self, id: Id, walked: Walked) {
        if let Some(place) = self.seen.get_mut(id.index()) {
            *place = walked;
        }
    }
}

/// The `at`-th value that a value holds.
fn child(value: &Value<'_>, at: usize) -> Option<Id> {
    let of_pairs = |entries: &[(Id, Id)], at: usize| {
        let (key, value) = entries.get(at / 2)?;
        Some(if at.is_multiple_of(2) { *key } else { *value })
    };
    match value {
        Value::Tuple(items) | Value::List(items) | Value::Set(items) | Value::FrozenSet(items) => {
            items.get(at).copied()
        }
        Value::Dict(entries) => of_pairs(entries, at),
        Value::Object(object) => match at.checked_sub(1) {
            None => Some(object.arguments),
            Some(at) => {
                let behind = || of_pairs(&object.entries, at.checked_sub(object.items.len())?);
                object.items.get(at).copied().or_else(behind)
            }
        },
        Value::Persistent(id) => (at == 0).then_some(*id),
        _ => None,
    }
}
