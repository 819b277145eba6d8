//! Names as a tree: natural order, groups by dotted segments, repeated layers folded into one.
//!
//! Holds no rendering. Invariant: the totals of a node are the sums over every tensor below it, all
//! copies of a fold included, so that a column of figures adds up.

use std::{cmp::Ordering, collections::HashMap};

use tensafe_format::{DiagnosedTensor, Dtype, TensorInfo};

/// Deeper segments of a name are one label: a name of thousands of dots makes no deep tree.
const MOST_LEVELS: usize = 64;

/// Tensors counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// How many tensors.
    pub tensors: u64,
    /// Their elements. A packed format counts what is stored, not what it decodes to.
    pub parameters: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Tensors as a tree of the segments of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tree {
    /// The roots, in natural order.
    pub nodes: Vec<Node>,
    /// All tensors.
    pub totals: Totals,
    /// The totals of each dtype, the most bytes first.
    pub dtypes: Vec<(Dtype, Totals)>,
}

/// One tensor or one group of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// The segments of the name that this node adds to its parent's, joined by dots. A fold of
    /// equal siblings is written as a range: `layers.0-31`.
    pub label: String,
    /// How many names stand behind this node, counting the folds above it; 1 without folds.
    pub copies: u64,
    /// The tensor that bears this very name, if there is one. Copies are all alike.
    pub tensor: Option<(Dtype, Vec<u64>)>,
    /// What is below, in natural order.
    pub children: Vec<Self>,
    /// Everything at and below this node, all copies together.
    pub totals: Totals,
}

/// Compares names as people read them: segment by segment between dots, and numbers by value, so
/// that `layers.2` stands before `layers.10`. A total order: only equal names are equal.
#[must_use]
pub fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (Some(a), Some(b)) => match segment_cmp(a, b) {
                Ordering::Equal => {}
                order => return order,
            },
            (a, b) => return a.is_some().cmp(&b.is_some()),
        }
    }
}

impl Totals {
    /// The totals of one tensor.
    #[must_use]
    pub fn of(tensor: &TensorInfo<'_>) -> Self {
        Self { tensors: 1, parameters: tensor.elements(), bytes: tensor.bytes() }
    }

    /// The sum of two. Figures stop at `u64::MAX`.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            tensors: self.tensors.saturating_add(other.tensors),
            parameters: self.parameters.saturating_add(other.parameters),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// The totals of one entry of a header that may be flawed: elements that overflow count as none.
    pub(crate) fn of_diagnosed(tensor: &DiagnosedTensor) -> Self {
        let parameters = tensor.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).unwrap_or_default();
        Self { tensors: 1, parameters, bytes: tensor.range.end.saturating_sub(tensor.range.start) }
    }

    fn times(self, copies: u64) -> Self {
        Self {
            tensors: self.tensors.saturating_mul(copies),
            parameters: self.parameters.saturating_mul(copies),
            bytes: self.bytes.saturating_mul(copies),
        }
    }
}

impl Tree {
    /// Arranges tensors, which may come in any order. Names are taken to be unique.
    ///
    /// Siblings are folded where their segments are consecutive integers and everything below them
    /// is alike: names, dtypes and shapes. A group of one child and no tensor is joined with it.
    ///
    /// # Cost
    /// A sort of the names, and memory for each node. The depth of the tree is bounded.
    ///
    /// # Examples
    /// ```
    /// use tensafe_format::{Dtype, Header, Layout, LayoutOptions, ParseOptions, TensorSpec};
    /// use tensafe_model::Tree;
    ///
    /// let specs = (0..12).map(|i| TensorSpec::new(format!("h.{i}.bias"), Dtype::F32, [4]));
    /// let layout = Layout::new(specs, None, &LayoutOptions::default())?;
    /// let header = Header::parse(layout.header_bytes(), layout.file_bytes(), &ParseOptions::default())?;
    /// let tree = Tree::new(header.tensors());
    /// assert_eq!(tree.nodes[0].label, "h.0-11.bias");
    /// assert_eq!(tree.totals.parameters, 48);
    /// # Ok::<(), tensafe_format::Error>(())
    /// ```
    pub fn new<'t>(tensors: impl IntoIterator<Item = TensorInfo<'t>>) -> Self {
        let mut rows: Vec<Row<'t>> =
            tensors.into_iter().map(|tensor| Row { rest: tensor.name(), tensor }).collect();
        rows.sort_by(|a, b| natural_cmp(a.rest, b.rest));
        let totals = rows.iter().fold(Totals::default(), |sum, row| sum.plus(Totals::of(&row.tensor)));
        let dtypes = dtype_totals(rows.iter().map(|row| (row.tensor.dtype(), Totals::of(&row.tensor))));
        let nodes = Builder::default().level(rows, 1).into_iter().map(|(node, _)| node).collect();
        Self { nodes, totals, dtypes }
    }
}

impl Node {
    fn multiply(&mut self, copies: u64) {
        self.copies = self.copies.saturating_mul(copies);
        self.totals = self.totals.times(copies);
        for child in &mut self.children {
            child.multiply(copies);
        }
    }
}

/// A tensor and what is left of its name.
struct Row<'t> {
    rest: &'t str,
    tensor: TensorInfo<'t>,
}

/// The sums by dtype, the most bytes first.
pub(crate) fn dtype_totals(tensors: impl Iterator<Item = (Dtype, Totals)>) -> Vec<(Dtype, Totals)> {
    let mut found: HashMap<Dtype, Totals> = HashMap::new();
    for (dtype, totals) in tensors {
        let sum = found.entry(dtype).or_default();
        *sum = sum.plus(totals);
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|(dtype, totals)| std::cmp::Reverse((totals.bytes, *dtype)));
    found
}

/// What makes two subtrees alike: the tensor, and the labels and kinds of the children.
#[derive(PartialEq, Eq, Hash)]
struct Structure {
    tensor: Option<(Dtype, Vec<u64>)>,
    children: Vec<(String, usize)>,
}

/// Gives alike subtrees the same number.
#[derive(Default)]
struct Builder {
    kinds: HashMap<Structure, usize>,
}

impl Builder {
    /// The nodes of rows that share the segments above, in the order of the rows, with their kinds.
    fn level(&mut self, rows: Vec<Row<'_>>, level: usize) -> Vec<(Node, usize)> {
        let mut nodes: Vec<(Node, usize)> = Vec::new();
        let mut rows = rows.into_iter().peekable();
        while let Some(first) = rows.next() {
            let (head, _) = split(first.rest, level);
            let mut group = vec![first];
            while let Some(row) = rows.next_if(|row| split(row.rest, level).0 == head) {
                group.push(row);
            }
            nodes.push(self.node(head, group, level));
        }
        fold(nodes).into_iter().map(join).collect()
    }

    fn node(&mut self, label: &str, group: Vec<Row<'_>>, level: usize) -> (Node, usize) {
        let mut tensor = None;
        let mut totals = Totals::default();
        let mut below = Vec::new();
        for row in group {
            totals = totals.plus(Totals::of(&row.tensor));
            match split(row.rest, level).1 {
                Some(rest) => below.push(Row { rest, ..row }),
                None => tensor = Some((row.tensor.dtype(), row.tensor.shape().to_vec())),
            }
        }
        let below = self.level(below, level.saturating_add(1));
        let structure = Structure {
            tensor: tensor.clone(),
            children: below.iter().map(|(node, kind)| (node.label.clone(), *kind)).collect(),
        };
        let next = self.kinds.len();
        let kind = *self.kinds.entry(structure).or_insert(next);
        let children = below.into_iter().map(|(node, _)| node).collect();
        (Node { label: label.to_owned(), copies: 1, tensor, children, totals }, kind)
    }
}

fn split(rest: &str, level: usize) -> (&str, Option<&str>) {
    match rest.split_once('.') {
        Some((head, tail)) if level < MOST_LEVELS => (head, Some(tail)),
        _ => (rest, None),
    }
}

/// Folds runs of alike siblings whose labels are consecutive integers.
fn fold(nodes: Vec<(Node, usize)>) -> Vec<(Node, usize)> {
    let mut folded = Vec::new();
    let mut nodes = nodes.into_iter().peekable();
    while let Some((mut node, kind)) = nodes.next() {
        if let Some(first) = integer(&node.label) {
            let mut last = first;
            while let Some((next, _)) = nodes.next_if(|(next, next_kind)| {
                *next_kind == kind && last.checked_add(1).is_some_and(|n| integer(&next.label) == Some(n))
            }) {
                last = integer(&next.label).unwrap_or(last);
            }
            if last > first {
                node.label = format!("{first}-{last}");
                node.multiply(last.saturating_sub(first).saturating_add(1));
            }
        }
        folded.push((node, kind));
    }
    folded
}

/// Joins a group of one with its child.
fn join((node, kind): (Node, usize)) -> (Node, usize) {
    if node.tensor.is_some() || node.children.len() != 1 {
        return (node, kind);
    }
    let Node { label, mut children, .. } = node;
    let Some(child) = children.pop() else {
        return (Node { label, children, ..node }, kind);
    };
    (Node { label: format!("{label}.{}", child.label), ..child }, kind)
}

/// The value of a label that is an integer as programs write it: digits, no leading zero.
fn integer(label: &str) -> Option<u64> {
    let plain = label.bytes().all(|b| b.is_ascii_digit()) && (label == "0" || !label.starts_with('0'));
    label.parse().ok().filter(|_| plain)
}

/// Natural order of two segments: digits in a row count as one number.
fn segment_cmp(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (rest_a.split_first(), rest_b.split_first()) {
            (Some((x, _)), Some((y, _))) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (x, after_x) = number(rest_a);
                let (y, after_y) = number(rest_b);
                match x.len().cmp(&y.len()).then_with(|| x.cmp(y)) {
                    Ordering::Equal => (rest_a, rest_b) = (after_x, after_y),
                    order => return order,
                }
            }
            (Some((x, after_x)), Some((y, after_y))) => match x.cmp(y) {
                Ordering::Equal => (rest_a, rest_b) = (after_x, after_y),
                order => return order,
            },
            // `1` and `01` are one number but two names.
            (x, y) => return x.is_some().cmp(&y.is_some()).then_with(|| a.cmp(b)),
        }
    }
}

/// The digits at the start, without leading zeros, and the rest.
fn number(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len());
    let (digits, rest) = bytes.split_at(end);
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    (digits.split_at(zeros).1, rest)
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::natural_cmp;

    #[test]
    fn numbers_are_compared_by_value_and_a_prefix_stands_first() {
        let ordered = [
            "",
            "a",
            "a.b",
            "a.b.c",
            "a.1x",
            "a-b",
            "layer2",
            "layer10",
            "layers",
            "layers.0.w",
            "layers.2.w",
            "layers.02.w",
            "layers.10.w",
            "layers.99999999999999999999998",
            "layers.99999999999999999999999",
            "layers.w",
            "é",
        ];
        let mut sorted = ordered.to_vec();
        sorted.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(
            sorted,
            [
                "",
                "a",
                "a.1x",
                "a.b",
                "a.b.c",
                "a-b",
                "layer2",
                "layer10",
                "layers",
                "layers.0.w",
                "layers.02.w",
                "layers.2.w",
                "layers.10.w",
                "layers.99999999999999999999998",
                "layers.99999999999999999999999",
                "layers.w",
                "é",
            ]
        );
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(natural_cmp(a, b), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(natural_cmp("x.7", "x.7"), Ordering::Equal);
    }
}
