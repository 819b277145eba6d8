use std::fmt::Write as _;

use tensafe_format::{Dtype, Header, Layout, LayoutOptions, ParseOptions, TensorSpec};
use tensafe_model::{Node, Tree};

fn tree(specs: Vec<TensorSpec>) -> Tree {
    let layout = Layout::new(specs, None, &LayoutOptions::default()).unwrap();
    let header = Header::parse(layout.header_bytes(), layout.file_bytes(), &ParseOptions::default()).unwrap();
    Tree::new(header.tensors())
}

fn of_names(names: &[&str]) -> Tree {
    tree(names.iter().map(|name| TensorSpec::new(*name, Dtype::U8, [2, 3])).collect())
}

/// One line a node: label, copies, tensors.
fn drawn(tree: &Tree) -> String {
    fn draw(node: &Node, depth: usize, into: &mut String) {
        let tensor = if node.tensor.is_some() { "*" } else { "" };
        let (label, copies, tensors) = (&node.label, node.copies, node.totals.tensors);
        writeln!(into, "{}{label}{tensor} {copies}/{tensors}", "  ".repeat(depth)).unwrap();
        for child in &node.children {
            draw(child, depth + 1, into);
        }
    }
    let mut lines = String::from("\n");
    for node in &tree.nodes {
        draw(node, 0, &mut lines);
    }
    lines
}

#[test]
fn folds_layers_that_are_alike_and_adds_up_all_copies() {
    let mut specs = vec![TensorSpec::new("norm.weight", Dtype::F32, [4])];
    for layer in 0..12 {
        specs.push(TensorSpec::new(format!("layers.{layer}.q.weight"), Dtype::BF16, [4, 4]));
        specs.push(TensorSpec::new(format!("layers.{layer}.q.bias"), Dtype::F32, [4]));
    }
    let tree = tree(specs);
    assert_eq!(
        drawn(&tree),
        "
layers.0-11.q 12/24
  bias* 12/12
  weight* 12/12
norm.weight* 1/1
"
    );
    assert_eq!((tree.totals.tensors, tree.totals.parameters, tree.totals.bytes), (25, 244, 592));
    let dtypes: Vec<_> = tree.dtypes.iter().map(|(dtype, totals)| (*dtype, totals.bytes)).collect();
    assert_eq!(dtypes, [(Dtype::BF16, 384), (Dtype::F32, 208)]);
}

#[test]
fn a_layer_of_another_shape_dtype_or_name_breaks_the_fold() {
    let spec = |layer: u32, name: &str, dtype, shape: [u64; 1]| {
        TensorSpec::new(format!("h.{layer}.{name}"), dtype, shape)
    };
    let tree = tree(vec![
        spec(0, "w", Dtype::U8, [2]),
        spec(1, "w", Dtype::U8, [2]),
        spec(2, "w", Dtype::U8, [3]),
        spec(3, "w", Dtype::I8, [3]),
        spec(4, "v", Dtype::I8, [3]),
        spec(6, "v", Dtype::I8, [3]),
        spec(7, "v", Dtype::I8, [3]),
    ]);
    assert_eq!(
        drawn(&tree),
        "
h 1/7
  0-1.w* 2/2
  2.w* 1/1
  3.w* 1/1
  4.v* 1/1
  6-7.v* 2/2
"
    );
}

#[test]
fn folds_within_folds_count_the_product_of_copies() {
    let mut specs = Vec::new();
    for layer in 0..3 {
        for expert in 0..4 {
            for name in ["up", "down"] {
                let name = format!("layers.{layer}.experts.{expert}.{name}");
                specs.push(TensorSpec::new(name, Dtype::U8, [5]));
            }
        }
    }
    let tree = tree(specs);
    assert_eq!(
        drawn(&tree),
        "
layers.0-2.experts.0-3 12/24
  down* 12/12
  up* 12/12
"
    );
    assert_eq!(tree.totals.bytes, 120);
}

#[test]
fn siblings_stand_in_natural_order_and_only_plain_integers_fold() {
    let tree = of_names(&["x.10", "x.9", "x.09", "x.2", "x.b10", "x.b9", "a"]);
    assert_eq!(
        drawn(&tree),
        "
a* 1/1
x 1/6
  2* 1/1
  09* 1/1
  9-10* 2/2
  b9* 1/1
  b10* 1/1
"
    );
}

#[test]
fn a_name_can_be_a_tensor_and_a_group() {
    assert_eq!(
        drawn(&of_names(&["w", "w.scale", "w.zero", "", "."])),
        "
* 1/2
  * 1/1
w* 1/3
  scale* 1/1
  zero* 1/1
"
    );
}

#[test]
fn a_name_of_many_dots_makes_no_deep_tree() {
    let deep = vec!["a"; 5000].join(".");
    let deeper = format!("{deep}.b");
    let tree = of_names(&[&deep, &deeper]);
    assert_eq!(tree.totals.tensors, 2);
    let [node] = &tree.nodes[..] else { panic!("one root") };
    assert_eq!(node.children.len(), 2);
}

#[test]
fn nothing_makes_an_empty_tree() {
    assert_eq!(of_names(&[]), Tree::default());
}
