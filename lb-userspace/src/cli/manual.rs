//! What shells and `man` know of the command, made from its grammar.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::builder::StyledStr;
use clap::{Arg, Args as ClapArgs, Command, CommandFactory as _};
use clap_complete::Shell;

use super::{Args, Exit, Failure, Screen};

/// A shell.
#[derive(Clone, Debug, ClapArgs)]
pub struct CompletionArgs {
    /// Which shell
    shell: Shell,
}

/// Where the pages go.
#[derive(Clone, Debug, ClapArgs)]
pub struct ManArgs {
    /// The directory, which has to be there
    #[arg(required_unless_present = "markdown")]
    directory: Option<PathBuf>,
    /// Print one page of Markdown instead
    #[arg(long, conflicts_with = "directory")]
    markdown: bool,
}

/// What makes a shell complete the words of `lb`.
pub(super) fn completion(args: &CompletionArgs, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "lb", &mut script);
    screen.out.write_all(&script)?;
    Ok(())
}

/// A page for `lb` and one for each of its commands, or all of it as Markdown.
pub(super) fn pages(args: &ManArgs, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let Some(directory) = &args.directory else {
        screen.out.write_all(markdown().as_bytes())?;
        return Ok(());
    };
    let written = clap_mangen::generate_to(Args::command(), directory);
    written.map_err(|error| {
        let directory = directory.display();
        Failure::new(Exit::Negative, format!("cannot write manual pages to {directory}: {error}"))
    })
}

/// What stands before the commands.
const HEAD: &str = "# The command line\n\nThis page is made of the commands' own help by `lb man --markdown`; `lb help COMMAND` shows \
                    the same in a terminal.\n";

/// All commands and options on one page.
fn markdown() -> String {
    let mut command = Args::command();
    command.build();
    let mut page = HEAD.to_owned();
    describe(&mut command, "lb", true, &mut page);
    page
}

fn describe(command: &mut Command, name: &str, is_root: bool, page: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(page, "\n## {name}\n\n{}\n\n", text(command.get_about()));
    let _ = write!(page, "```text\n{}\n```\n", command.render_usage());
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && (is_root || !arg.is_global_set()))
        .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        .collect();
    if !own.is_empty() {
        page.push('\n');
        page.extend(own.iter().map(|arg| line(arg)));
    }
    let after = text(command.get_after_help());
    if !after.is_empty() {
        let _ = write!(page, "\n```text\n{after}\n```\n");
    }
    for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
        describe(inner, &format!("{name} {}", inner.get_name()), false, page);
    }
}

/// A parameter in a line.
fn line(arg: &Arg) -> String {
    let help = text(arg.get_help());
    let values: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let one_of = if values.is_empty() || !arg.get_action().takes_values() {
        String::new()
    } else {
        format!(" (one of {})", values.join(", "))
    };
    let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = if default.is_empty() || !arg.get_action().takes_values() {
        String::new()
    } else {
        format!(" [default: {}]", default.join(" "))
    };
    format!("* `{arg}`: {help}{one_of}{default}\n")
}

fn text(styled: Option<&StyledStr>) -> String {
    styled.map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::lb;
    use super::*;

    #[test]
    fn every_shell_learns_the_commands() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let ran = lb(&["completion", shell]);
            assert_eq!(ran.exit, Exit::Ok, "{shell}: {}", ran.err);
            for word in ["backend", "drain", "rollback"] {
                assert!(ran.out.contains(word), "{shell} does not learn {word}");
            }
        }
    }

    /// `lb man --markdown > docs/cli.md` makes it so.
    #[test]
    fn the_page_in_docs_is_this_command_line() {
        let ran = lb(&["man", "--markdown"]);
        assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");
        let page = fs::read_to_string(path).unwrap();
        assert!(page == ran.out, "docs/cli.md is old: write it anew with `lb man --markdown > docs/cli.md`");
        assert!(page.contains("\n## lb backend drain\n") && page.contains("* `--timeout <"), "{page}");
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let ran = lb(&["man", folder.path().to_str().unwrap()]);
        assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
        let page = fs::read_to_string(folder.path().join("lb-backend-drain.1")).unwrap();
        assert!(page.contains("lb\\-backend\\-drain") && page.contains("timeout"), "{page}");
        assert!(folder.path().join("lb.1").is_file() && folder.path().join("lb-config-rollback.1").is_file());
        let nowhere = lb(&["man", "/nonexistent"]);
        assert_eq!(nowhere.exit, Exit::Negative);
        assert!(
            nowhere.err.starts_with("lb: cannot write manual pages to /nonexistent: "),
            "{}",
            nowhere.err
        );
    }
}
