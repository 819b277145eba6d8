use insta::assert_snapshot;

use crate::Place;

#[test]
fn help_of_the_program() {
    assert_snapshot!(Place::new().run(&["--help"]));
}

#[test]
fn help_of_inspect() {
    assert_snapshot!(Place::new().run(&["inspect", "--help"]));
}

#[test]
fn help_of_verify() {
    assert_snapshot!(Place::new().run(&["verify", "--help"]));
}

#[test]
fn help_of_scan() {
    assert_snapshot!(Place::new().run(&["scan", "--help"]));
}

#[test]
fn help_of_completions() {
    assert_snapshot!(Place::new().run(&["completions", "--help"]));
}

#[test]
fn no_arguments_show_the_help_as_an_error() {
    let page = Place::new().run(&[]);
    assert!(page.starts_with("exit code: 2\n----- stdout -----\n----- stderr -----\nConvert"), "{page}");
}

#[test]
fn completions_and_man_pages_are_written_to_stdout() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let page = place.run(&["completions", shell]);
        assert!(page.starts_with("exit code: 0") && page.contains("no-truncate"), "{page}");
    }
    for (arguments, title) in [(&["man"][..], ".TH tensafe 1"), (&["man", "verify"], ".TH tensafe-verify 1")]
    {
        let page = place.run(arguments);
        assert!(page.starts_with("exit code: 0") && page.contains(title), "{page}");
    }
}

#[test]
fn a_path_before_a_command_is_explained() {
    assert_snapshot!(Place::new().run(&["model.safetensors", "verify", "other.safetensors"]));
}
